// How doctor judges the response to a Secret that it tries: by the causes of the webhook's denial, by the API server's message
// where the webhook could not be called, and by the annotations. Pure.
import { describe, expect, test } from 'vitest';
import {
  callFailure,
  type Deployment,
  judgeResponses,
  type Refusal,
} from '../../../../cli/commands/doctor/check-injection.ts';
import { type FailureCode, firstProblem } from '../../../../cli/commands/doctor/checks.ts';
import { ShellCommands } from '../../../../cli/output/shell-commands.ts';
import { type DenialCause, registryField } from '../../../../contract/denials.ts';
import { ANNOTATION, WEBHOOK_NAME } from '../../../../contract/names.ts';
import { formatFingerprint } from '../../../../contract/version.ts';
import { INSTALLATION as installation } from './installation.ts';

const commands = new ShellCommands({}, { context: 'prod' });
const KUBECTL = 'kubectl --context prod --namespace ecr-anywhere';
const LOGS = `${KUBECTL} logs deployment/ecr-anywhere --tail=50`;

const judgeOne = (response: Parameters<typeof judgeResponses>[0][number], deployment?: Deployment) =>
  judgeResponses([response], { commands, installation }, deployment);
const calling = (error: string): Refusal => ({
  namespace: 'team-a',
  message: `Internal error occurred: failed calling webhook "${WEBHOOK_NAME}": failed to call webhook: ${error}`,
  causes: [],
});
const denied = (...causes: DenialCause[]): Refusal => ({
  namespace: 'team-a',
  message: `admission webhook "${WEBHOOK_NAME}" denied the request: a sentence that nothing parses`,
  causes,
});
const failureOf = (response: Refusal, deployment?: Deployment) => {
  const findings = judgeOne(response, deployment);
  return findings.find(({ verdict }) => verdict === 'failed');
};

const EOF = 'Post "https://x/sync": EOF';
const UNTRUSTED = 'tls: failed to verify certificate: x509: certificate signed by unknown authority';
const WRONG_NAME = 'tls: failed to verify certificate: x509: certificate is valid for a, not b';

test.each([
  [UNTRUSTED, 'ca-bundle-mismatch'],
  ['unable to load root certificates: unable to parse bytes as PEM block', 'ca-bundle-mismatch'],
  [WRONG_NAME, 'certificate-invalid'],
  [
    'tls: failed to verify certificate: x509: certificate has expired or is not yet valid',
    'certificate-invalid',
  ],
  ['context deadline exceeded', 'webhook-timeout'],
  ['dial tcp 10.0.0.1:8443: connect: no route to host', 'webhook-timeout'],
  ['dial tcp 10.0.0.1:8443: i/o timeout', 'webhook-timeout'],
  ['dial tcp 10.0.0.1:8443: connect: connection refused', 'webhook-unreachable'],
  [EOF, 'webhook-unreachable'],
] as const)('callFailure reads the API server’s message "%s" as %s', (error, expected) => {
  expect(callFailure(calling(error).message)).toBe(expected);
});

test.each([
  denied().message,
  calling(EOF).message.replace(WEBHOOK_NAME, 'other.example.com'),
  'exceeded quota: x509',
])('callFailure ignores "%s"', (message) => {
  expect(callFailure(message)).toBeUndefined();
});

describe('a webhook that the API server cannot call', () => {
  const ready = { replicas: 2, ready: 2 };
  test.each<{ error: string; deployment?: Deployment; code: FailureCode; command: string | RegExp }>([
    { error: UNTRUSTED, code: 'ca-bundle-mismatch', command: LOGS },
    { error: WRONG_NAME, code: 'certificate-invalid', command: LOGS },
    { error: EOF, deployment: 'unknown', code: 'webhook-unreachable', command: LOGS },
    {
      error: EOF,
      deployment: 'missing',
      code: 'webhook-not-deployed',
      command: /^helm upgrade ecr-anywhere /,
    },
    {
      error: EOF,
      deployment: { replicas: 0, ready: 0 },
      code: 'webhook-scaled-down',
      command: `${KUBECTL} scale deployment/ecr-anywhere --replicas=2`,
    },
    { error: EOF, deployment: ready, code: 'webhook-unreachable', command: LOGS },
    // A port of the pods may be blocked; which one would help is a guess.
    {
      error: 'context deadline exceeded',
      deployment: ready,
      code: 'webhook-timeout',
      command: `${KUBECTL} get endpointslices,networkpolicies --output=wide`,
    },
    {
      error: 'context deadline exceeded',
      deployment: { replicas: 2, ready: 0 },
      code: 'webhook-unreachable',
      command: LOGS,
    },
  ])('is $code: $error, deployment $deployment', ({ error, deployment, code, command }) => {
    const failure = failureOf(calling(error), deployment);
    expect(failure).toMatchObject({ code, message: expect.stringContaining(error) });
    const isRepair = ['webhook-not-deployed', 'webhook-scaled-down'].includes(code);
    const shown = isRepair ? failure?.repair : failure?.investigate;
    if (typeof command === 'string') expect(shown).toBe(command);
    else expect(shown).toMatch(command);
  });

  test.each([
    { tlsMode: 'provided', command: /get secret ecr-anywhere-tls .*openssl/ },
    { tlsMode: 'cert-manager', command: /describe certificates\.cert-manager\.io$/ },
  ])('is investigated by tls.mode $tlsMode', ({ tlsMode, command }) => {
    const cluster = { commands, installation: { ...installation, tlsMode } };
    const [failure] = judgeResponses([calling(UNTRUSTED)], cluster);
    expect(failure?.investigate).toMatch(command);
    expect(failure?.repair).toBeUndefined();
  });
});

describe('a denial by the webhook', () => {
  const noToken: DenialCause = { reason: 'no-token', message: 'no registry has a token' };
  const field = registryField('1.dkr.ecr.eu-central-1.amazonaws.com');
  const roleArn = 'arn:aws:iam::123456789012:role/teams/pull-team-a';

  test.each<{ name: string; causes: DenialCause[]; code: FailureCode; command: string }>([
    {
      name: 'the policy gives the namespace no registry',
      causes: [{ reason: 'not-entitled', message: 'x' }],
      code: 'not-entitled',
      command: 'helm get values ecr-anywhere --namespace ecr-anywhere --kube-context prod',
    },
    {
      name: 'no AWS identity',
      causes: [noToken, { reason: 'aws-no-identity', field, message: 'x' }],
      code: 'aws-no-identity',
      command: LOGS,
    },
    {
      name: 'a role that cannot be assumed, whose name is the last part of its path',
      causes: [noToken, { reason: 'aws-role-denied', field, message: roleArn }],
      code: 'aws-role-denied',
      command: 'aws iam get-role --role-name pull-team-a --query Role.AssumeRolePolicyDocument',
    },
    {
      name: 'a role that is not named',
      causes: [noToken, { reason: 'aws-role-denied', field, message: 'x' }],
      code: 'aws-role-denied',
      command: LOGS,
    },
    {
      name: 'a role that ECR denies',
      causes: [noToken, { reason: 'ecr-denied', field, message: roleArn }],
      code: 'ecr-denied',
      command: `aws iam simulate-principal-policy --policy-source-arn ${roleArn} --action-names ecr:GetAuthorizationToken ecr-public:GetAuthorizationToken`,
    },
    ...(['ecr-throttled', 'ecr-unavailable', 'ecr-error'] as const).map((code) => ({
      ...{ name: code, code, causes: [noToken, { reason: code, field, message: 'x' }], command: LOGS },
    })),
    {
      name: 'the first of several registries decides',
      causes: [noToken, { reason: 'ecr-throttled', message: 'x' }, { reason: 'ecr-denied', message: 'x' }],
      code: 'ecr-throttled',
      command: LOGS,
    },
    {
      name: 'another reason',
      causes: [{ reason: 'internal-error', message: 'x' }],
      code: 'denied',
      command: LOGS,
    },
  ])('is $code: $name', ({ causes, code, command }) => {
    const failure = failureOf(denied(...causes));
    expect(failure).toMatchObject({
      code,
      message: expect.stringContaining('a sentence that nothing parses'),
      investigate: command,
    });
    expect(failure?.repair).toBeUndefined();
  });

  test('shows that the API server calls the webhook', () => {
    const verdicts = (response: Refusal) =>
      Object.fromEntries(
        judgeOne(response)
          .toReversed()
          .map(({ check, verdict }) => [check, verdict]),
      );
    expect(verdicts(denied({ reason: 'not-entitled', message: 'x' }))).toEqual({
      ...{ webhook: 'passed', injection: 'passed', ecr: 'failed' },
    });
    expect(verdicts(denied())).toEqual({ webhook: 'passed', injection: 'failed', ecr: 'skipped' });
    expect(verdicts(calling(EOF))).toEqual({ webhook: 'failed', injection: 'skipped', ecr: 'skipped' });
  });
});

describe('an accepted Secret', () => {
  const accepted = (annotations: Record<string, string> = {}) => ({ namespace: 'team-a', annotations });
  const written = { [ANNOTATION.updatedAt]: 'x', [ANNOTATION.expiresAt]: 'y' };
  const current = formatFingerprint('hash');

  test.each<{ name: string; annotations: Record<string, string>; code?: FailureCode }>([
    { name: 'the webhook wrote it', annotations: { ...written, [ANNOTATION.fingerprint]: current } },
    { name: 'no webhook wrote it', annotations: {}, code: 'webhook-not-called' },
    { name: 'the webhook of CentML wrote it', annotations: written, code: 'webhook-not-called' },
    {
      name: 'an older contract',
      annotations: { ...written, [ANNOTATION.fingerprint]: 'hash' },
      code: 'webhook-too-old',
    },
    {
      name: 'a newer contract',
      annotations: { ...written, [ANNOTATION.fingerprint]: '99.hash' },
      code: 'webhook-too-new',
    },
  ])('$name: $code', ({ annotations, code }) => {
    expect(firstProblem(judgeOne(accepted(annotations)))?.code).toBe(code);
  });

  test('fails if the policy of the caller proof refuses what the webhook did not see', () => {
    const policy = 'ecr-anywhere-caller-proof';
    const message = `secrets "x" is forbidden: ValidatingAdmissionPolicy '${policy}' with binding '${policy}' denied request: no`;
    const refusal = { namespace: 'team-a', message, causes: [] };
    expect(firstProblem(judgeOne(refusal))?.code).toBe('webhook-not-called');
  });

  test('without a namespace to try it in, the checks are skipped', () => {
    const findings = judgeResponses([], { commands, installation });
    expect(findings.map(({ verdict }) => verdict)).toEqual(['skipped', 'skipped', 'skipped']);
  });

  test('another admission plugin’s refusal decides nothing', () => {
    const refusal: Refusal = { namespace: 'team-b', message: 'exceeded quota', causes: [] };
    const findings = judgeOne(refusal);
    expect(findings.every(({ verdict }) => verdict === 'skipped')).toBe(true);
    const ok = accepted({ ...written, [ANNOTATION.fingerprint]: current });
    expect(firstProblem(judgeResponses([refusal, ok], { commands, installation }))).toBeUndefined();
  });
});
