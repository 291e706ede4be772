// Encryption with a key of the customer: what a role may do with it.
import { Stack } from 'aws-cdk-lib';
import { PolicyStatement } from 'aws-cdk-lib/aws-iam';
import type { IKey } from 'aws-cdk-lib/aws-kms';
import type { Construct } from 'constructs';

/**
 * Lets services use the key when the role calls them. The role itself cannot use it.
 *
 * @param services names as in their hosts
 * @param more actions, in addition to those that every service needs
 */
export function keyStatements(
  scope: Construct,
  key: IKey | undefined,
  services: readonly string[],
  ...more: readonly string[]
): PolicyStatement[] {
  if (!key) return [];
  const { region, urlSuffix } = Stack.of(scope);
  return [
    new PolicyStatement({
      actions: ['kms:Decrypt', 'kms:GenerateDataKey', ...more],
      resources: [key.keyArn],
      conditions: {
        StringEquals: { 'kms:ViaService': services.map((service) => `${service}.${region}.${urlSuffix}`) },
      },
    }),
  ];
}
