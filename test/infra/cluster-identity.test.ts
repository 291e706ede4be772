// The IAM roles of clusters' webhooks: which tokens may assume them, and what they allow.
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

test('creates an OIDC provider for each issuer, with the audience of AWS', () => {
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

test('creates a role for one ServiceAccount of each cluster, which may pull the given repositories', () => {
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

test('has the ARN of each role as an output', () => {
  expect(Object.keys(template.toJSON().Outputs as object)).toEqual(
    expect.arrayContaining(['WebhookRoleArnk3s', 'WebhookRoleArngpu']),
  );
});

const WEBHOOK = { name: 'a', issuer: 'https://a.example', repositories: ['a'] };

test.each([
  { title: 'a text instead of a list', webhooks: 'k3s', path: 'webhooks' },
  { title: 'an issuer without TLS', but: { issuer: 'http://a.example' }, path: 'webhooks.0.issuer' },
  {
    title: 'an issuer with a slash at its end',
    but: { issuer: 'https://a.example/' },
    path: 'webhooks.0.issuer',
  },
  { title: 'an issuer with a port', but: { issuer: 'https://a.example:6443' }, path: 'webhooks.0.issuer' },
  { title: 'an issuer with a user', but: { issuer: 'https://me@a.example' }, path: 'webhooks.0.issuer' },
  { title: 'an issuer in capitals', but: { issuer: 'https://A.example' }, path: 'webhooks.0.issuer' },
  { title: 'no repositories', but: { repositories: [] }, path: 'webhooks.0.repositories' },
  { title: 'a repository with its host', but: { repositories: ['x:y'] }, path: 'webhooks.0.repositories.0' },
  { title: 'a pattern for a namespace', but: { namespace: '*' }, path: 'webhooks.0.namespace' },
  {
    title: 'an empty ServiceAccount',
    but: { serviceAccount: '' },
    path: 'webhooks.0.serviceAccount',
  },
  { title: 'a thumbprint with colons', but: { thumbprints: ['01:23'] }, path: 'webhooks.0.thumbprints.0' },
  { title: 'a name of hyphens', but: { name: '-' }, path: 'webhooks.0.name' },
  { title: 'a mistyped field', but: { role: 'x' }, path: 'webhooks.0' },
  {
    title: 'two names that differ only in hyphens',
    webhooks: [WEBHOOK, { ...WEBHOOK, name: '-a', issuer: 'https://b.example' }],
    path: 'webhooks: name',
  },
  {
    title: 'one issuer twice',
    webhooks: [WEBHOOK, { ...WEBHOOK, name: 'b' }],
    path: 'webhooks: issuer',
  },
])('refuses $title with the path of the field', ({ webhooks, but, path }) => {
  const refused = () => synth({ webhooks: webhooks ?? [{ ...WEBHOOK, ...but }] });
  expect(refused).toThrow(`- ${path}: `);
});
