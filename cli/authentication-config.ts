// The API server's side of a keyless cluster: whom it takes for the refresher.
import { stringify } from 'yaml';
import { audienceOf, DEFAULT_STAGE } from '../contract/keyless.ts';
import { REFRESHER_GROUP } from '../contract/names.ts';
import { type Command, readOptions, UsageError } from './command.ts';

const API_VERSIONS = ['v1beta1', 'v1'];

export const authenticationConfig: Command = {
  summary: "a keyless cluster's AuthenticationConfiguration, for its API server",
  usage: `Usage: ecr-anywhere authentication-config --cluster NAME --issuer URL --role-arn ARN
         [--stage STAGE] [--api-version v1]

Prints an AuthenticationConfiguration (Kubernetes 1.30 and later) for kube-apiserver's
--authentication-config, by which the refresher's role is a member of ${REFRESHER_GROUP}.

  --cluster NAME       as it is registered
  --issuer URL         the account's: aws iam get-outbound-web-identity-federation-info
  --role-arn ARN       the stack's output RoleArn
  --stage STAGE        name of the CDK stack; default: ${DEFAULT_STAGE}
  --api-version v1     for Kubernetes 1.34 and later; default: v1beta1`,

  async run(args) {
    const options = readOptions(args, ['cluster', 'issuer', 'role-arn'], ['stage', 'api-version']);
    const { cluster, issuer, 'role-arn': roleArn, stage = DEFAULT_STAGE } = options;
    const { 'api-version': apiVersion = 'v1beta1' } = options;
    if (!/^https:\/\/[^\s/?#]+(\/[^\s?#]*)?$/.test(issuer))
      throw new UsageError('--issuer must be an https URL');
    if (!/^arn:aws[a-z-]*:iam::\d{12}:role\/[\w+=,.@/-]+$/.test(roleArn))
      throw new UsageError('--role-arn must be such as arn:aws:iam::123456789012:role/refresher');
    if (!API_VERSIONS.includes(apiVersion))
      throw new UsageError(`--api-version must be ${API_VERSIONS.join(' or ')}`);
    const audience = audienceOf(stage, cluster);
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
                message: 'the token is not of the role of the refresher',
              },
              {
                // A token for several clusters could be shown by one to another.
                expression: `claims.aud == ${literal(audience)} || claims.aud == [${literal(audience)}]`,
                message: 'the token is for others, too',
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
  },
};
