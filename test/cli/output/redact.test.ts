// Checks that redact removes credentials from messages, and keeps names and paths, which operators paste into commands.
import { expect, test } from 'vitest';
import { redact } from '../../../cli/output/redact.ts';

test.each([
  'the function EcrAnywhere-RefresherFunctionRefresher0C5F3A3B-kM8aBcDeFgHi failed: no reason',
  '--credential /home/operator1/work/clusters/production/kubeconfig: it is not YAML',
  'aws eks delete-access-entry --principal-arn arn:aws:iam::111122223333:role/team/EcrAnywhere-RefresherFunctionRoleDF987936-A7B1B7C689984',
  'aws secretsmanager update-secret-version-stage --secret-id ecr-anywhere/clusters/team-a/production1/eu-central-1 --remove-from-version-id 0b1c2d3e-1111-2222-3333-444455556666',
  'PATCH /api/v1/namespaces/a-namespace-with-a-long-name-1/secrets/pull: HTTP 403',
])('is shown: %s', (words) => {
  expect(redact(words)).toBe(words);
});

test.each([
  { title: 'a secret access key', secret: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY' },
  { title: 'a session token', secret: `IQoJb3JpZ2luX2VjE/+${'aB3/'.repeat(100)}==` },
  { title: 'a token of a service account', secret: 'eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl' },
  { title: 'a token of EKS', secret: `k8s-aws-v1.${'aHR0cHM6Ly9zdHM'.repeat(10)}` },
  { title: 'a token of unknown origin', secret: 'abcd-efgh123_ijklmnopqrstuvwxyz0123456789ABCDEFG' },
])('is hidden: $title', ({ secret }) => {
  expect(redact(`the message "${secret}" and ${secret}`)).toBe('the message "…" and …');
});
