// The client of Secrets Manager for the registered clusters' secrets, with the prefix of their names.

import { SecretsManagerClient, type SecretsManagerClientConfig } from '@aws-sdk/client-secrets-manager';
import { CLUSTERS_PREFIX } from '../../../contract/names.ts';

export class ClusterSecretsClient extends SecretsManagerClient {
  readonly prefix: string;

  constructor(prefix: string, config: SecretsManagerClientConfig) {
    super(config);
    this.prefix = prefix;
  }
}

/** The prefix of the registered clusters' secrets. Of another client: that of the default stack. */
export function prefixOf(client: SecretsManagerClient): string {
  return client instanceof ClusterSecretsClient ? client.prefix : CLUSTERS_PREFIX;
}
