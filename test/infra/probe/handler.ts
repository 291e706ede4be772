// A handler that runs with the refresher's role: makes one call to AWS and returns whether it was allowed.
import { DynamoDBClient, GetItemCommand, ScanCommand, UpdateItemCommand } from '@aws-sdk/client-dynamodb';
import { InvokeCommand, LambdaClient } from '@aws-sdk/client-lambda';
import {
  CreateSecretCommand,
  DeleteSecretCommand,
  GetSecretValueCommand,
  ListSecretsCommand,
  PutSecretValueCommand,
  SecretsManagerClient,
  UpdateSecretVersionStageCommand,
} from '@aws-sdk/client-secrets-manager';
import { ReceiveMessageCommand, SendMessageCommand, SQSClient } from '@aws-sdk/client-sqs';

export interface ProbeEvent {
  readonly call: keyof typeof CALLS;
  /** The name of the secret, queue, table or function. */
  readonly target?: string;
}

const secrets = new SecretsManagerClient();
const queues = new SQSClient();
const lambda = new LambdaClient();
const dynamo = new DynamoDBClient();
const Key = { cluster: { S: 'probe' } };

const CALLS = {
  ListSecrets: () => secrets.send(new ListSecretsCommand({})),
  GetSecretValue: (SecretId?: string) => secrets.send(new GetSecretValueCommand({ SecretId })),
  PutSecretValue: (SecretId?: string) =>
    secrets.send(new PutSecretValueCommand({ SecretId, SecretString: 'x' })),
  UpdateSecretVersionStage: (SecretId?: string) =>
    secrets.send(new UpdateSecretVersionStageCommand({ SecretId, VersionStage: 'probe' })),
  UpdateItem: (TableName?: string) => dynamo.send(new UpdateItemCommand({ TableName, Key })),
  GetItem: (TableName?: string) => dynamo.send(new GetItemCommand({ TableName, Key })),
  Scan: (TableName?: string) => dynamo.send(new ScanCommand({ TableName })),
  CreateSecret: (Name?: string) => secrets.send(new CreateSecretCommand({ Name, SecretString: 'x' })),
  DeleteSecret: (SecretId?: string) => secrets.send(new DeleteSecretCommand({ SecretId })),
  SendMessage: (QueueUrl?: string) => queues.send(new SendMessageCommand({ QueueUrl, MessageBody: 'probe' })),
  ReceiveMessage: (QueueUrl?: string) => queues.send(new ReceiveMessageCommand({ QueueUrl })),
  Invoke: (FunctionName?: string) => lambda.send(new InvokeCommand({ FunctionName })),
} as const;

/** Answers 'allowed', or the name of the error. */
export async function handler({ call, target }: ProbeEvent): Promise<string> {
  try {
    await CALLS[call](target);
    return 'allowed';
  } catch (error) {
    return error instanceof Error ? error.name : String(error);
  }
}
