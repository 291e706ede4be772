// Ctrl-C and SIGKILL at each request of the commands that change something: nothing is left that a run would use, and the
// same command completes the work. After Ctrl-C: exit code 130, and one message.
// The test holds the request until it has sent the signal.
import type { ChildProcess } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { EXIT } from '../../../../cli/output/errors.ts';
import { TAG } from '../../../../contract/names.ts';
import type { Ended } from '../../command-line.ts';
import { type Operator, startOperator } from '../../operator.ts';
import { functionAnswer, type Treatment, type Wire } from '../../wire.ts';

let operator: Operator;
beforeAll(async () => {
  operator = await startOperator();
});
afterAll(() => operator?.[Symbol.asyncDispose]());
afterEach(() => operator.reset());

interface Interruption {
  readonly signal?: NodeJS.Signals;
  /** How many times the signal is sent in quick succession. */
  readonly times?: number;
  /** How long the request is held after the signal. */
  readonly heldMs?: number;
  /** When the request is held: before the server gets it, before its response, or without any response. */
  readonly hold?: 'before' | 'after' | 'forever';
  readonly wire?: Wire;
}

/** Runs a command, and sends a signal while the request of that name is held. @returns the time since the signal, too */
async function interruptAt(
  name: string,
  args: string,
  { signal = 'SIGINT', times = 1, heldMs = 500, hold = 'before', wire = operator.aws }: Interruption = {},
): Promise<Ended & { readonly ms: number }> {
  let child: ChildProcess | undefined;
  let sentAt = 0;
  const released = Promise.withResolvers<void>();
  let isHeld = false;
  wire.handle = (call): Treatment | undefined => {
    if (call.name !== name || isHeld) return undefined;
    isHeld = true;
    const release = async () => {
      // By then the process waits for the response.
      await sleep(100);
      sentAt = performance.now();
      for (let sent = 0; sent < times; sent++) {
        child?.kill(signal);
        await sleep(50);
      }
      await sleep(heldMs);
      released.resolve();
    };
    if (hold === 'forever') {
      void release();
      return { isSilent: true };
    }
    return hold === 'before' ? { before: release } : { after: release };
  };
  const ended = await operator.cli.run(args.split(' '), {
    onStart: (started) => {
      child = started;
    },
  });
  const ms = performance.now() - sentAt;
  expect(isHeld, `${args} requests ${name}`).toBe(true);
  // By then a request that was passed on late has been answered.
  await released.promise;
  await sleep(200);
  wire.handle = () => undefined;
  return { ...ended, ms };
}

/** Expects exit code 130 and one message. @param message the whole standard error; default: with or without a hint */
function expectInterrupted(
  { code, stdout, stderr }: Ended,
  message = /^ecr-anywhere: The command was interrupted\.\n( {2}→ [^\n]+\n)?$/,
): void {
  expect({ code, stdout }, stderr).toEqual({ code: EXIT.interrupted, stdout: '' });
  expect(stderr).toMatch(message);
}

const run = (args: string) => operator.cli.run(args.split(' '));
const registeredNames = async () => ((await registered()).exists ? ['beta'] : []);

const STATUS = 'lambda:InvokeFunction status';
const INSPECT = 'lambda:InvokeFunction inspect';
const REFRESH = 'lambda:InvokeFunction refresh';
const REVOKE = 'lambda:InvokeFunction revoke';
const CREATE = 'secretsmanager:CreateSecret';
const PUT = 'secretsmanager:PutSecretValue';
const NAMESPACE = 'GET /api/v1/namespaces/kube-system';
const TOKEN = 'POST /api/v1/namespaces/ecr-anywhere/serviceaccounts/ecr-anywhere-refresher/token';

const DESCRIBE = 'secretsmanager:DescribeSecret';
const MOVE = 'secretsmanager:UpdateSecretVersionStage';
const UNTAG = 'secretsmanager:UntagResource';

/** The registration of beta in AWS. */
async function registered() {
  const { registered: all } = (await operator.state()) as {
    registered: { Name: string; tags: { Key: string }[]; versions: [string, string[]][] }[];
  };
  const found = all.find(({ Name }) => Name.endsWith('/beta'));
  const current = found?.versions.find(([, stages]) => stages.includes('AWSCURRENT'));
  return {
    exists: found !== undefined,
    isIncomplete: found?.tags.some(({ Key }) => Key === TAG.registering) ?? false,
    current: current?.[0],
  };
}

type Place = [string, Interruption & { readonly ofCluster?: true }];

describe('register', () => {
  const wireOf = (ofCluster?: true) => (ofCluster ? operator.clusters.beta : operator.aws);
  afterEach(async () => {
    operator.reset();
    if ((await registered()).exists) await operator.bed.deployment.unregisterCluster('beta');
  });

  test.each<Place>([
    ['cloudformation:DescribeStacks', {}],
    ['cloudformation:DescribeStacks', { hold: 'forever' }],
    [NAMESPACE, { ofCluster: true }],
    [STATUS, {}],
    ['GET /apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations', { ofCluster: true }],
    [CREATE, {}],
    // For a closed terminal, the kernel and the shell both send SIGHUP. npx forwards a SIGINT that was already received.
    [CREATE, { hold: 'after', signal: 'SIGHUP', times: 2 }],
    [CREATE, { hold: 'after', signal: 'SIGINT', times: 2 }],
    [TOKEN, { ofCluster: true }],
    [TOKEN, { ofCluster: true, hold: 'after' }],
    [PUT, { hold: 'after', heldMs: 3_000, signal: 'SIGTERM' }],
    [INSPECT, { hold: 'after' }],
    [INSPECT, { hold: 'forever' }],
    [MOVE, { hold: 'after' }],
    [REFRESH, { hold: 'after', signal: 'SIGTERM' }],
  ])('leaves nothing that a run would use at %s %j', async (name, { ofCluster, ...interruption }) => {
    const ended = await interruptAt(name, 'register beta', { ...interruption, wire: wireOf(ofCluster) });
    expectInterrupted(ended);
    expect(ended.ms).toBeLessThan(8_000);
    const { exists, isIncomplete } = await registered();
    expect(isIncomplete).toBe(exists && name !== REFRESH);
    const hint = isIncomplete
      ? 'To complete it, repeat the register command; to remove it: ecr-anywhere unregister beta'
      : name === REFRESH
        ? 'beta is registered. To refresh it: ecr-anywhere refresh beta'
        : undefined;
    expect(ended.stderr).toBe(
      `ecr-anywhere: The command was interrupted.\n${hint === undefined ? '' : `  → ${hint}\n`}`,
    );
  });

  test.each<Place>([
    [CREATE, { hold: 'after' }],
    [TOKEN, { ofCluster: true, hold: 'after' }],
    [PUT, {}],
    [PUT, { hold: 'after' }],
    [INSPECT, { hold: 'after' }],
    [MOVE, { hold: 'after' }],
    [UNTAG, { hold: 'forever' }],
  ])(
    'is completed by the same command after SIGKILL at %s %j',
    async (name, { ofCluster, ...interruption }) => {
      const killed = await interruptAt(name, 'register beta', {
        ...interruption,
        signal: 'SIGKILL',
        wire: wireOf(ofCluster),
      });
      expect(killed).toMatchObject({ code: null, stdout: '', stderr: '' });
      expect(await registered()).toMatchObject({ exists: true, isIncomplete: true });
      expect((await run('refresh beta')).stdout).toContain('its registration is not complete');
      expect(await run('register beta')).toMatchObject({ code: 0, stderr: '' });
      expect(await registered()).toMatchObject({ isIncomplete: false });
      expect(await run('refresh beta')).toMatchObject({ code: 0 });
    },
  );

  test('of an interrupted attempt is removed by unregister, which revokes its token', async () => {
    expectInterrupted(await interruptAt(INSPECT, 'register beta'));
    expect(await run('unregister beta')).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('are revoked'),
    });
    expectInterrupted(await interruptAt(TOKEN, 'register beta', { wire: operator.clusters.beta }));
    expect(await run('unregister beta')).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('interrupted before it stored a credential'),
    });
    expect((await registered()).exists).toBe(false);
  });

  test('exits at once after a second Ctrl-C', async () => {
    let child: ChildProcess | undefined;
    let secondAt = 0;
    operator.aws.handle = (call) => {
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

  test('does not wait for an exec plugin that hangs', async () => {
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

describe('of a registered cluster,', () => {
  beforeAll(async () => {
    const { code, stderr } = await run('register beta');
    expect(code, stderr).toBe(0);
  });

  test.each<[string, Interruption]>([
    [DESCRIBE, {}],
    [PUT, {}],
    [PUT, { hold: 'after', signal: 'SIGKILL' }],
    [INSPECT, {}],
    [MOVE, { hold: 'forever', signal: 'SIGKILL' }],
    [MOVE, { hold: 'after', signal: 'SIGKILL' }],
    [REFRESH, { hold: 'after' }],
  ])(
    'register --replace changes the credential only when the new one is verified, at %s %j',
    async (name, interruption) => {
      const before = await registered();
      const ended = await interruptAt(name, 'register beta --replace', interruption);
      if (interruption.signal === 'SIGKILL') expect(ended.code).toBeNull();
      else expectInterrupted(ended);
      const after = await registered();
      expect(after.isIncomplete).toBe(false);
      const isDone = name === REFRESH || (name === MOVE && interruption.hold === 'after');
      expect(after.current === before.current).toBe(!isDone);
      expect(await run('refresh beta')).toMatchObject({ code: 0 });
      expect(await run('register beta --replace')).toMatchObject({ code: 0 });
    },
  );

  test.each(['cloudformation:DescribeStacks', REFRESH])('refresh stops at %s', async (name) => {
    const ended = await interruptAt(name, 'refresh beta');
    expectInterrupted(
      ended,
      name === REFRESH
        ? /^ecr-anywhere: The command was interrupted[^\n]+\n {2}→ [^\n]*ecr-anywhere status[^\n]*\n$/
        : undefined,
    );
  });

  test('pause completes a change that AWS has received', async () => {
    const ended = await interruptAt('secretsmanager:TagResource', 'pause beta');
    expect(ended.code).toBe(0);
    expect(ended.stdout).toContain('beta is paused');
    expect(await run('resume beta')).toMatchObject({ code: 0 });
  });

  test('status --watch stops', async () => {
    const ended = await operator.cli.run(['status', '--watch', '--interval', '1'], {
      onStart: (child) => setTimeout(() => child.kill('SIGINT'), 4_000),
    });
    expect({ code: ended.code, stderr: ended.stderr }).toEqual({
      code: EXIT.interrupted,
      stderr: 'ecr-anywhere: The command was interrupted.\n',
    });
    expect(ended.stdout.match(/CLUSTER/g)?.length).toBeGreaterThan(1);
    expect(ended.stdout).not.toContain('\u001b');
  });

  test('unregister changes nothing before it revokes the token', async () => {
    const before = await operator.state();
    expectInterrupted(await interruptAt(STATUS, 'unregister beta'));
    expect(await operator.state()).toEqual(before);
  });

  test('unregister keeps the registration after it has revoked the token, and a second run deletes it', async () => {
    const ended = await interruptAt(REVOKE, 'unregister beta', { hold: 'after' });
    expectInterrupted(
      ended,
      /^ecr-anywhere: The command was interrupted[^\n]+\n {2}→ [^\n]*ecr-anywhere unregister beta[^\n]*\n$/,
    );
    expect(await registeredNames()).toEqual(['beta']);
    expect((await run('refresh beta')).stdout).toContain('HTTP 401');
    expect(await run('unregister beta')).toMatchObject({ code: 0, stderr: '' });
    expect(await registeredNames()).toEqual([]);
  });

  test('unregister completes a deletion that AWS has received', async () => {
    expect(await run('register beta')).toMatchObject({ code: 0 });
    operator.aws.handle = (call) =>
      call.name === REVOKE
        ? { reply: functionAnswer({ revoked: [{ cluster: 'beta', outcome: 'revoked' }] }) }
        : undefined;
    const ended = await interruptAt('secretsmanager:DeleteSecret', 'unregister beta --keep-token');
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    expect(ended.stdout).toContain('beta is no longer registered');
    expect(await registeredNames()).toEqual([]);
  });
});
