// The identities of clusters' webhooks: whose tokens IAM takes, and what they open.
import { expect, test } from 'vitest';
import { resources, synth } from './synth.ts';

const template = synth({
  webhooks: JSON.stringify([
    { name: 'k3s', issuer: 'https://oidc.example.com/k3s', repositories: ['team-a/*', 'base'] },
    {
      name: 'gpu',
      issuer: 'https://gpu.example.com',
      repositories: ['*'],
      namespace: 'platform',
      serviceAccount: 'pulls',
      thumbprints: ['0123456789abcdef0123456789ABCDEF01234567'],
    },
  ]),
});

test('each issuer is trusted for AWS’ audience', () => {
  const providers = Object.values(resources(template, 'AWS::IAM::OIDCProvider'));
  expect(providers.map(({ Properties }) => Properties)).toEqual([
    { Url: 'https://oidc.example.com/k3s', ClientIdList: ['sts.amazonaws.com'] },
    {
      Url: 'https://gpu.example.com',
      ClientIdList: ['sts.amazonaws.com'],
      ThumbprintList: ['0123456789abcdef0123456789ABCDEF01234567'],
    },
  ]);
});

const refs = [{ Ref: 'AWS::Partition' }, ':ecr:', { Ref: 'AWS::Region' }, ':', { Ref: 'AWS::AccountId' }];

test('a role is for one ServiceAccount of its cluster, and pulls what it was given', () => {
  const roles = resources(template, 'AWS::IAM::Role');
  const role = (name: string) => roles[`Webhook${name}Role`]?.Properties;
  expect(role('k3s')).toMatchObject({
    AssumeRolePolicyDocument: {
      Statement: [
        {
          Action: 'sts:AssumeRoleWithWebIdentity',
          Effect: 'Allow',
          Principal: { Federated: { 'Fn::GetAtt': [expect.stringMatching(/^Webhookk3sIssuer/), 'Arn'] } },
          Condition: {
            StringEquals: {
              'oidc.example.com/k3s:aud': 'sts.amazonaws.com',
              'oidc.example.com/k3s:sub': 'system:serviceaccount:ecr-anywhere:ecr-anywhere',
            },
          },
        },
      ],
    },
    Policies: [
      {
        PolicyDocument: {
          Statement: [
            { Action: 'ecr:GetAuthorizationToken', Effect: 'Allow', Resource: '*' },
            {
              Action: ['ecr:BatchCheckLayerAvailability', 'ecr:BatchGetImage', 'ecr:GetDownloadUrlForLayer'],
              Effect: 'Allow',
              Resource: ['base', 'team-a/*'].map((name) => ({
                'Fn::Join': ['', ['arn:', ...refs, `:repository/${name}`]],
              })),
            },
          ],
        },
      },
    ],
  });
  expect(role('gpu')).toMatchObject({
    AssumeRolePolicyDocument: {
      Statement: [
        {
          Condition: {
            StringEquals: { 'gpu.example.com:sub': 'system:serviceaccount:platform:pulls' },
          },
        },
      ],
    },
  });
  expect(role('gpu')).not.toHaveProperty('ManagedPolicyArns');
});

test('outputs name the roles, for the chart', () => {
  expect(Object.keys(template.toJSON().Outputs as object)).toEqual(
    expect.arrayContaining(['WebhookRoleArnk3s', 'WebhookRoleArngpu']),
  );
});

const WEBHOOK = { name: 'a', issuer: 'https://a.example', repositories: ['a'] };

test.each([
  { title: 'no list', webhooks: 'k3s', says: 'expected array' },
  { title: 'an issuer without TLS', but: { issuer: 'http://a.example' }, says: 'https URL' },
  { title: 'an issuer with a slash at its end', but: { issuer: 'https://a.example/' }, says: 'no slash' },
  { title: 'an issuer with a port', but: { issuer: 'https://a.example:6443' }, says: 'no port' },
  { title: 'an issuer with a user', but: { issuer: 'https://me@a.example' }, says: 'must be a host' },
  { title: 'an issuer in capitals', but: { issuer: 'https://A.example' }, says: 'small letters' },
  { title: 'no repositories', but: { repositories: [] }, says: 'repositories' },
  { title: 'a repository with its host', but: { repositories: ['x:y'] }, says: 'names of repositories' },
  { title: 'a pattern for a namespace', but: { namespace: '*' }, says: 'namespace: must be a name of' },
  {
    title: 'an empty ServiceAccount',
    but: { serviceAccount: '' },
    says: 'serviceAccount: must be a name of',
  },
  { title: 'a thumbprint with colons', but: { thumbprints: ['01:23'] }, says: '40 hexadecimal digits' },
  { title: 'a name of hyphens', but: { name: '-' }, says: 'name: must be' },
  { title: 'a mistyped field', but: { role: 'x' }, says: 'role' },
  {
    title: 'one name twice, in CloudFormation',
    webhooks: [WEBHOOK, { ...WEBHOOK, name: '-a', issuer: 'https://b.example' }],
    says: 'each cluster needs another',
  },
  {
    title: 'one issuer twice',
    webhooks: [WEBHOOK, { ...WEBHOOK, name: 'b' }],
    says: 'one provider for each',
  },
])('refuses $title by name', ({ webhooks, but, says }) => {
  const refused = () => synth({ webhooks: webhooks ?? [{ ...WEBHOOK, ...but }] });
  expect(refused).toThrow(/- webhooks/);
  expect(refused).toThrow(says);
});
