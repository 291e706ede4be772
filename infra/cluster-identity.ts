// The AWS identity of a cluster's webhook: an IAM role that the webhook assumes with a token of its ServiceAccount.
import { Stack } from 'aws-cdk-lib';
import {
  CfnOIDCProvider,
  type IRole,
  PolicyDocument,
  PolicyStatement,
  Role,
  WebIdentityPrincipal,
} from 'aws-cdk-lib/aws-iam';
import { Construct } from 'constructs';

export interface ClusterIdentityProps {
  /** The issuer of the cluster's ServiceAccount tokens: an https URL whose discovery documents AWS can read. */
  readonly issuer: string;
  /** Repositories of this account and region that the role may pull from; `*` matches any part of a name. */
  readonly repositories: readonly string[];
  /** The namespace of the chart's release. Default: ecr-anywhere. */
  readonly namespace?: string | undefined;
  /** The webhook's ServiceAccount, which has the full name of the release. Default: ecr-anywhere. */
  readonly serviceAccount?: string | undefined;
  /**
   * SHA-1 fingerprints (hexadecimal, up to five) of the authority in the issuer's certificate chain. AWS uses them only if
   * no public authority signed the chain. Default: IAM reads the fingerprint when it creates the provider.
   */
  readonly thumbprints?: readonly string[] | undefined;
}

/** The audience of the tokens, which is the chart's default for aws.webIdentity.audience. */
const AUDIENCE = 'sts.amazonaws.com';

/** An IAM OIDC provider for the cluster's issuer, and a role that only the webhook's ServiceAccount may assume. */
export class ClusterIdentity extends Construct {
  readonly role: IRole;

  constructor(scope: Construct, id: string, props: ClusterIdentityProps) {
    super(scope, id);
    const { issuer, repositories, thumbprints } = props;
    const { namespace = 'ecr-anywhere', serviceAccount = 'ecr-anywhere' } = props;
    const provider = new CfnOIDCProvider(this, 'Issuer', {
      url: issuer,
      clientIdList: [AUDIENCE],
      ...(thumbprints && { thumbprintList: [...thumbprints] }),
    });
    const claimPrefix = issuer.replace(/^https:\/\//, '');
    this.role = new Role(this, 'Role', {
      description: `The webhook of ECR Anywhere in the cluster whose issuer is ${issuer}`.slice(0, 1_000),
      assumedBy: new WebIdentityPrincipal(provider.attrArn, {
        StringEquals: {
          [`${claimPrefix}:aud`]: AUDIENCE,
          [`${claimPrefix}:sub`]: `system:serviceaccount:${namespace}:${serviceAccount}`,
        },
      }),
      inlinePolicies: {
        Pull: new PolicyDocument({
          statements: [
            // This action supports no resources (Service Authorization Reference, ECR).
            new PolicyStatement({ actions: ['ecr:GetAuthorizationToken'], resources: ['*'] }),
            new PolicyStatement({
              actions: ['ecr:BatchGetImage', 'ecr:GetDownloadUrlForLayer', 'ecr:BatchCheckLayerAvailability'],
              resources: repositories.map((name) =>
                Stack.of(this).formatArn({ service: 'ecr', resource: 'repository', resourceName: name }),
              ),
            }),
          ],
        }),
      },
    });
  }
}
