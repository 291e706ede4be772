// The registered clusters: secrets under one prefix in AWS Secrets Manager, the value of each a kubeconfig.
import {
  GetSecretValueCommand,
  paginateListSecrets,
  type SecretsManagerClient,
} from '@aws-sdk/client-secrets-manager';
import { CLUSTERS_PREFIX } from './settings.ts';

/** The names of the registered clusters, sorted. */
export async function listClusters(client: SecretsManagerClient, signal: AbortSignal): Promise<string[]> {
  const names: string[] = [];
  const pages = paginateListSecrets(
    { client, pageSize: 100 },
    { Filters: [{ Key: 'name', Values: [CLUSTERS_PREFIX] }] },
    { abortSignal: signal },
  );
  for await (const { SecretList } of pages) {
    for (const { Name } of SecretList ?? []) {
      // The filter ignores case; IAM does not.
      if (Name?.startsWith(CLUSTERS_PREFIX) && Name !== CLUSTERS_PREFIX)
        names.push(Name.slice(CLUSTERS_PREFIX.length));
    }
  }
  return names.sort();
}

/** A cluster's kubeconfig as it was registered. @throws Error without a word of its content */
export async function readKubeconfig(
  client: SecretsManagerClient,
  cluster: string,
  signal: AbortSignal,
): Promise<string> {
  const { SecretString } = await client.send(
    new GetSecretValueCommand({ SecretId: `${CLUSTERS_PREFIX}${cluster}` }),
    {
      abortSignal: signal,
    },
  );
  if (!SecretString)
    throw new Error('the registered secret has no text: store the kubeconfig as its SecretString');
  return SecretString;
}
