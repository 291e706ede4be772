// The DynamoDB table of the cluster state, on the local AWS.
import { CreateTableCommand, DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { STATE_ATTRIBUTE } from '../../functions/refresher/settings.ts';
import { type Emulator, startEmulator } from '../bed/emulator.ts';
import { tools } from '../bed/toolchain.ts';

export interface ClusterStateTable extends AsyncDisposable {
  readonly name: string;
  readonly client: DynamoDBClient;
  readonly emulator: Emulator;
}

/** Starts a local AWS with the table as the CDK app creates it. @param dir the emulator's directory */
export async function startClusterStateTable(dir: string): Promise<ClusterStateTable> {
  const emulator = await startEmulator({ dir, python: tools().python });
  const client = new DynamoDBClient(emulator.clientConfig);
  const name = 'cluster-state';
  await client.send(
    new CreateTableCommand({
      TableName: name,
      BillingMode: 'PAY_PER_REQUEST',
      KeySchema: [{ AttributeName: STATE_ATTRIBUTE.cluster, KeyType: 'HASH' }],
      AttributeDefinitions: [{ AttributeName: STATE_ATTRIBUTE.cluster, AttributeType: 'S' }],
    }),
  );
  return {
    name,
    client,
    emulator,
    async [Symbol.asyncDispose]() {
      client.destroy();
      await emulator.stop();
    },
  };
}
