// The other direction of a keyless cluster: its webhook's own identity in AWS, by the tokens of its ServiceAccount.
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
  /** Issuer of the cluster's service account tokens: an https URL that AWS can read the discovery documents of. */
  readonly issuer: string;
  /** What its tokens may pull: names of repositories of this account and region, `*` for any part of them. */
  readonly repositories: readonly string[];
  /** Where the chart is installed. Default: ecr-anywhere. */
  readonly namespace?: string | undefined;
  /** The webhook's ServiceAccount: the release's full name. Default: ecr-anywhere. */
  readonly serviceAccount?: string | undefined;
  /**
   * SHA-1 sums, in hexadecimal, of the authority's certificate in the issuer's chain, up to five. AWS looks at them only
   * where no public authority signed; without any, IAM takes the one that it is shown when the provider is made.
   */
  readonly thumbprints?: readonly string[] | undefined;
}

/** STS' own, as the chart asks for it. */
const AUDIENCE = 'sts.amazonaws.com';

/** Trusts a cluster's issuer, for its webhook and for nobody else there. */
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
    const key = issuer.replace(/^https:\/\//, '');
    this.role = new Role(this, 'Role', {
      description: `The webhook of ECR Anywhere in the cluster whose issuer is ${issuer}`.slice(0, 1_000),
      assumedBy: new WebIdentityPrincipal(provider.attrArn, {
        StringEquals: {
          [`${key}:aud`]: AUDIENCE,
          [`${key}:sub`]: `system:serviceaccount:${namespace}:${serviceAccount}`,
        },
      }),
      inlinePolicies: {
        Pull: new PolicyDocument({
          statements: [
            // It knows no resources (Service Authorization Reference, ECR).
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
