// Ctrl-C at each stage of what changes something: an exit code of 130, a sentence, and nothing that is half done. Each
// stage is held in front of AWS, or of the API server, until the signal is sent.
import type { ChildProcess } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { EXIT } from '../../../../cli/output/errors.ts';
import type { Ended } from '../../command-line.ts';
import { type Operator, startOperator } from '../../operator.ts';
import { functionAnswer, type Treatment, type Wire } from '../../wire.ts';

let operator: Operator;
beforeAll(async () => {
  operator = await startOperator();
}, 300_000);
afterAll(() => operator?.[Symbol.asyncDispose]());
afterEach(() => operator.calm());

interface Interruption {
  readonly signal?: NodeJS.Signals;
  /** How often it is sent, at once. */
  readonly times?: number;
  /** How long after the signal the request goes on. */
  readonly heldMs?: number;
  /** Whether it is held in front of the other side, or when that has done it. */
  readonly where?: 'before' | 'after' | 'silent';
  readonly wire?: Wire;
}

/** Runs a command, and sends a signal while the request of that name is held. */
async function interruptAt(
  name: string,
  args: string,
  { signal = 'SIGINT', times = 1, heldMs = 500, where = 'before', wire = operator.aws }: Interruption = {},
): Promise<Ended & { readonly ms: number }> {
  let child: ChildProcess | undefined;
  let sentAt = 0;
  const held = Promise.withResolvers<void>();
  let isDone = false;
  wire.treat = (call): Treatment | undefined => {
    if (call.name !== name || isDone) return undefined;
    isDone = true;
    const release = async () => {
      // Of the signal the process is to hear while it waits.
      await sleep(100);
      sentAt = performance.now();
      for (let sent = 0; sent < times; sent++) {
        child?.kill(signal);
        await sleep(50);
      }
      await sleep(heldMs);
      held.resolve();
    };
    if (where === 'silent') {
      void release();
      return { isSilent: true };
    }
    return where === 'before' ? { before: release } : { after: release };
  };
  const ended = await operator.cli.run(args.split(' '), {
    onStart: (started) => {
      child = started;
    },
  });
  const ms = performance.now() - sentAt;
  expect(isDone, `${args} asks for ${name}`).toBe(true);
  // What was passed on late has arrived by then.
  await held.promise;
  await sleep(200);
  wire.treat = () => undefined;
  return { ...ended, ms };
}

function expectInterrupted(
  { code, stdout, stderr }: Ended,
  // Once there is a token, what becomes of it.
  says:
    | RegExp
    | string = /^ecr-anywhere: interrupted\n( {2}→ the token that was made lives until [^\n]+\n)?$/,
): void {
  expect({ code, stdout }, stderr).toEqual({ code: EXIT.interrupted, stdout: '' });
  if (typeof says === 'string') expect(stderr).toContain(says);
  else expect(stderr).toMatch(says);
  expect(stderr).not.toMatch(/\n\s+at |AbortError|could not be taken back/);
}

const run = (args: string) => operator.cli.run(args.split(' '));
const registered = async () =>
  (await operator.cli.json<{ clusters: { name: string }[] }>(['status'])).clusters.map(({ name }) => name);

const STATUS = 'lambda:InvokeFunction status';
const INSPECT = 'lambda:InvokeFunction inspect';
const REFRESH = 'lambda:InvokeFunction refresh';
const REVOKE = 'lambda:InvokeFunction revoke';
const CREATE = 'secretsmanager:CreateSecret';
const PUT = 'secretsmanager:PutSecretValue';
const NAMESPACE = 'GET /api/v1/namespaces/kube-system';
const TOKEN = 'POST /api/v1/namespaces/ecr-anywhere/serviceaccounts/ecr-anywhere-refresher/token';

describe('register', () => {
  test.each<[string, Interruption & { readonly ofCluster?: true }]>([
    ['cloudformation:DescribeStacks', {}],
    ['cloudformation:DescribeStacks', { where: 'silent' }],
    [NAMESPACE, { ofCluster: true }],
    [STATUS, {}],
    [STATUS, { signal: 'SIGTERM' }],
    ['GET /apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations', { ofCluster: true }],
    [TOKEN, { ofCluster: true }],
    [TOKEN, { ofCluster: true, where: 'after' }],
    [CREATE, {}],
    [CREATE, { heldMs: 3_000 }],
    [CREATE, { where: 'after' }],
    // Of a terminal that is closed the system tells, and then its shell; npx hands on what the terminal has sent.
    [CREATE, { where: 'after', signal: 'SIGHUP', times: 2 }],
    [CREATE, { where: 'after', signal: 'SIGINT', times: 2 }],
    [CREATE, { where: 'after', heldMs: 3_000, signal: 'SIGTERM' }],
    [INSPECT, {}],
    [INSPECT, { where: 'after' }],
    [INSPECT, { where: 'silent' }],
    [REFRESH, {}],
    [REFRESH, { where: 'after', signal: 'SIGTERM' }],
  ])('%s %j', async (name, { ofCluster, ...interruption }) => {
    const before = await operator.state();
    const wire = ofCluster ? operator.clusters.beta : operator.aws;
    const ended = await interruptAt(name, 'register beta', { ...interruption, wire });
    expectInterrupted(ended);
    // From then on there is a token, which nothing takes back.
    if ([CREATE, INSPECT, REFRESH].includes(name)) expect(ended.stderr).toContain('nobody has kept it');
    expect(ended.ms).toBeLessThan(8_000);
    expect(await operator.state()).toEqual(before);
    expect(await registered()).toEqual([]);
  });

  test('an answer that never comes, after AWS has done it: whose it is tells the version', async () => {
    const before = await operator.state();
    const ended = await interruptAt(CREATE, 'register beta', { where: 'after', heldMs: 14_000 });
    expectInterrupted(ended);
    expect(ended.ms).toBeGreaterThan(9_000);
    expect(await operator.state()).toEqual(before);
  });

  test('a second Ctrl-C ends at once, whatever is half done', async () => {
    let child: ChildProcess | undefined;
    let secondAt = 0;
    operator.aws.treat = (call) => {
      if (call.name !== CREATE) return undefined;
      setTimeout(() => child?.kill('SIGINT'), 100);
      setTimeout(() => {
        secondAt = performance.now();
        child?.kill('SIGINT');
      }, 600);
      return { isSilent: true };
    };
    const { code } = await operator.cli.run(['register', 'beta'], {
      onStart: (started) => {
        child = started;
      },
    });
    expect(code).toBe(EXIT.interrupted);
    expect(performance.now() - secondAt).toBeLessThan(1_000);
  });

  test('an exec plugin that hangs is not waited for', async () => {
    const { readFile, writeFile } = await import('node:fs/promises');
    const path = `${operator.cli.home}/hanging.kubeconfig`;
    const exec =
      'exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: sleep, args: ["20"]}';
    await writeFile(path, (await readFile(operator.kubeconfigs.beta, 'utf8')).replace(/token: .*/, exec));
    const startedAt = performance.now();
    const ended = await operator.cli.run(['register', 'beta', '--kubeconfig', path], {
      onStart: (child) => setTimeout(() => child.kill('SIGINT'), 3_000),
    });
    expectInterrupted(ended);
    expect(performance.now() - startedAt).toBeLessThan(10_000);
  });
});

describe('of a registered cluster', () => {
  beforeAll(async () => {
    const { code, stderr } = await run('register beta');
    expect(code, stderr).toBe(0);
  });

  test.each<[string, Interruption]>([
    ['secretsmanager:DescribeSecret', {}],
    [PUT, {}],
    [PUT, { where: 'after' }],
    [PUT, { where: 'after', heldMs: 14_000 }],
    [INSPECT, {}],
    [REFRESH, { where: 'after' }],
  ])('register --replace: %s %j; the version before is current again', async (name, interruption) => {
    const before = await operator.state();
    const ended = await interruptAt(name, 'register beta --replace', interruption);
    expectInterrupted(ended);
    const after = (await operator.state()) as { registered: { versions: [string, string[]][] }[] };
    expect(after).toEqual(before);
    expect(await run('refresh beta')).toMatchObject({ code: 0 });
  });

  test.each(['cloudformation:DescribeStacks', REFRESH])('refresh: %s', async (name) => {
    const ended = await interruptAt(name, 'refresh beta');
    expectInterrupted(
      ended,
      name === REFRESH
        ? /^ecr-anywhere: interrupted: the refresh of beta goes on in AWS\n {2}→ ecr-anywhere status tells what came of it\n$/
        : undefined,
    );
  });

  test('pause: what AWS is changing is changed', async () => {
    const ended = await interruptAt('secretsmanager:TagResource', 'pause beta');
    expect(ended.code).toBe(0);
    expect(ended.stdout).toContain('beta is paused');
    expect(await run('resume beta')).toMatchObject({ code: 0 });
  });

  test('status --watch', async () => {
    const ended = await operator.cli.run(['status', '--watch', '--interval', '1'], {
      onStart: (child) => setTimeout(() => child.kill('SIGINT'), 4_000),
    });
    expect({ code: ended.code, stderr: ended.stderr }).toEqual({
      code: EXIT.interrupted,
      stderr: 'ecr-anywhere: interrupted\n',
    });
    expect(ended.stdout.match(/CLUSTER/g)?.length).toBeGreaterThan(1);
    expect(ended.stdout).not.toContain('\u001b');
  });

  test('unregister: before the token is ended, all is as it was', async () => {
    const before = await operator.state();
    expectInterrupted(await interruptAt(STATUS, 'unregister beta'));
    expect(await operator.state()).toEqual(before);
  });

  test('unregister: after that it is registered still, says so, and a second time does the rest', async () => {
    const ended = await interruptAt(REVOKE, 'unregister beta', { where: 'after' });
    expectInterrupted(
      ended,
      /^ecr-anywhere: interrupted: beta is registered still, and its token has ended or is about to\n {2}→ ecr-anywhere unregister beta does the rest;/,
    );
    expect(await registered()).toEqual(['beta']);
    expect((await run('refresh beta')).stdout).toContain('HTTP 401');
    expect(await run('unregister beta')).toMatchObject({ code: 0, stderr: '' });
    expect(await registered()).toEqual([]);
  });

  test('unregister: while the registration is deleted, it is deleted', async () => {
    expect(await run('register beta')).toMatchObject({ code: 0 });
    operator.aws.treat = (call) =>
      call.name === REVOKE
        ? { reply: functionAnswer({ revoked: [{ cluster: 'beta', outcome: 'revoked' }] }) }
        : undefined;
    const ended = await interruptAt('secretsmanager:DeleteSecret', 'unregister beta --keep-token');
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    expect(ended.stdout).toContain('beta is not registered any more');
    expect(await registered()).toEqual([]);
  });
});
