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
    },
  ]),
});

test('each issuer is trusted for AWS’ audience', () => {
  const providers = Object.values(resources(template, 'AWS::IAM::OIDCProvider'));
  expect(providers.map(({ Properties }) => Properties)).toEqual([
    { Url: 'https://oidc.example.com/k3s', ClientIdList: ['sts.amazonaws.com'] },
    { Url: 'https://gpu.example.com', ClientIdList: ['sts.amazonaws.com'] },
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

test.each([
  { title: 'no list', webhooks: 'k3s' },
  {
    title: 'an issuer without TLS',
    webhooks: [{ name: 'a', issuer: 'http://a.example', repositories: ['a'] }],
  },
  {
    title: 'an issuer with a slash at its end',
    webhooks: [{ name: 'a', issuer: 'https://a.example/', repositories: ['a'] }],
  },
  { title: 'no repositories', webhooks: [{ name: 'a', issuer: 'https://a.example', repositories: [] }] },
  {
    title: 'a mistyped field',
    webhooks: [{ name: 'a', issuer: 'https://a.example', repositories: ['a'], role: 'x' }],
  },
])('refuses $title by name', ({ webhooks }) => {
  expect(() => synth({ webhooks })).toThrow(/webhooks/);
});
