// Checks that redact removes credentials from messages, and keeps names and paths, which operators paste into commands.
import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { redact } from '../../../cli/output/redact.ts';

const SECRET = 'arn:aws:secretsmanager:eu-central-1:111122223333:secret:ecr-anywhere/clusters';

test.each([
  'the function EcrAnywhere-RefresherFunctionRefresher0C5F3A3B-kM8aBcDeFgHi failed: no reason',
  'EcrAnywhere-RefresherFunctionRefresher3CA9DA10-A00A0D0E32774',
  '--credential /home/operator1/work/clusters/production/kubeconfig: it is not YAML',
  'aws eks delete-access-entry --principal-arn arn:aws:iam::111122223333:role/team/EcrAnywhere-RefresherFunctionRoleDF987936-A7B1B7C689984',
  'aws secretsmanager update-secret-version-stage --secret-id ecr-anywhere/clusters/team-a/production1/eu-central-1 --remove-from-version-id 0b1c2d3e-1111-2222-3333-444455556666',
  `User: arn:aws:sts::111122223333:assumed-role/AWSReservedSSO_AdministratorAccess_0123456789abcdef/me@example.com is not authorized to perform: secretsmanager:CreateSecret on resource: ${SECRET}/a-very-long-name-of-a-cluster-1-in-some-place-2-AbCdEf`,
  'PATCH /api/v1/namespaces/a-namespace-with-a-long-name-1/secrets/pull: HTTP 403',
  'GET /apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations: HTTP 403: forbidden: User "system:serviceaccount:ecr-anywhere:ecr-anywhere-refresher" cannot',
  'kubectl delete secret ecr-anywhere-refresher-token --namespace ecr-anywhere',
  'https://A0B1C2D3E4F5A0B1C2D3E4F5A0B1C2D3.gr7.eu-central-1.eks.amazonaws.com',
  'the Secret that the token is bound to is deleted',
  'a basic configuration',
  'its token: not ended',
])('is shown: %s', (words) => {
  expect(redact(words)).toBe(words);
});

test.each([
  { title: 'a secret access key', secret: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY' },
  { title: 'a session token', secret: `IQoJb3JpZ2luX2VjE/+${'aB3/'.repeat(100)}==` },
  { title: 'a token of a service account', secret: 'eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl' },
  { title: 'a token of EKS', secret: `k8s-aws-v1.${'aHR0cHM6Ly9zdHM'.repeat(10)}` },
  { title: 'a token of unknown origin', secret: 'abcd-efgh123_ijklmnopqrstuvwxyz0123456789ABCDEFG' },
  { title: 'random base64', secret: randomBytes(90).toString('base64') },
])('is hidden: $title', ({ secret }) => {
  expect(redact(`the message "${secret}" and ${secret}`)).toBe('the message "…" and …');
  for (const before of ['Authorization: Bearer ', 'x-amz-security-token:', '"token": "'])
    expect(redact(`${before}${secret}"`)).not.toContain(secret);
});

test('is hidden: the password in a URL', () => {
  expect(redact('http://me:hunter2hunter2@proxy:3128 refused')).toBe('http://…@proxy:3128 refused');
});
