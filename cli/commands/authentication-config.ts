// ecr-anywhere authentication-config: prints how an API server of a keyless cluster authenticates the refresher.
import { parse, stringify } from 'yaml';
import { DEFAULT_STACK_NAME } from '../../contract/keyless.ts';
import { REFRESHER_GROUP } from '../../contract/names.ts';
import { CliError } from '../output/errors.ts';
import type { Io } from '../output/io.ts';
import { checkedAudience } from './audience.ts';

export interface AuthenticationOptions {
  readonly cluster: string;
  /** URL of the AWS account's token issuer. */
  readonly issuer: string;
  readonly roleArn: string;
  readonly stackName?: string;
  readonly apiVersion: 'v1beta1' | 'v1';
}

/** Prints it. @throws CliError that names the invalid option */
export async function authenticationConfig(options: AuthenticationOptions, io: Io): Promise<undefined> {
  const document = authenticationConfigOf(options);
  io.print(parse(document), () => document);
}

/** An AuthenticationConfiguration (YAML) for one role and one audience. @throws CliError that names the invalid option */
export function authenticationConfigOf(options: AuthenticationOptions): string {
  const { cluster, issuer, roleArn, stackName = DEFAULT_STACK_NAME, apiVersion } = options;
  if (!/^https:\/\/[^\s/?#]+(\/[^\s?#]*)?$/.test(issuer))
    throw new CliError('usage', '--issuer must be an https URL.');
  if (!/^arn:aws[a-z-]*:iam::\d{12}:role\/[\w+=,.@/-]+$/.test(roleArn))
    throw new CliError(
      'usage',
      'The role must be given by its ARN, such as arn:aws:iam::123456789012:role/refresher.',
    );
  const audience = checkedAudience(stackName, cluster);
  const literal = (text: string) => JSON.stringify(text);
  return stringify(
    {
      apiVersion: `apiserver.config.k8s.io/${apiVersion}`,
      kind: 'AuthenticationConfiguration',
      jwt: [
        {
          issuer: { url: issuer, audiences: [audience] },
          claimValidationRules: [
            {
              expression: `claims.sub == ${literal(roleArn)}`,
              message: 'the token does not belong to the role of the refresher',
            },
            {
              // One cluster could use a token with several audiences at another cluster.
              expression: `claims.aud == ${literal(audience)} || claims.aud == [${literal(audience)}]`,
              message: 'the token has other audiences',
            },
          ],
          claimMappings: {
            username: { expression: "'ecr-anywhere:' + claims.sub" },
            groups: { expression: `['${REFRESHER_GROUP}']` },
          },
        },
      ],
    },
    { lineWidth: 0 },
  ).trimEnd();
}
