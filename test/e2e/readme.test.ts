// Types README.md's way to a running Pod on the bed, command by command and in its order, and compares what each step
// prints.
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type ControlPlane, startControlPlane } from '../bed/control-plane.ts';
import { type Pod, runPodToItsEnd, startPod } from '../bed/kubelet.ts';
import { Bed } from '../bed/up.ts';
import { NAMESPACE, prepareNamespace, RELEASE, SERVICE_PORT, serviceAddress } from '../bed/webhook.ts';
import { commandsOf, type Ended, pattern, Shell } from '../docs/shell.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** README's name of the cluster and of the context. */
const CLUSTER = 'prod';
const README = await readFile(join(ROOT, 'README.md'), 'utf8');
const COMMANDS = commandsOf(README);
const SETTINGS = JSON.parse(/```json\n([\s\S]*?)```/.exec(README)?.[1] ?? '') as Record<string, unknown>;
/** The manifests, in README's order: the Secret, what becomes of it, the Pod. */
const [SECRET = '', , POD = ''] = [...README.matchAll(/```yaml\n([\s\S]*?)```/g)].map(([, text]) => text);

/** What the bed cannot do, by the beginning of the command. */
const NOT_TYPED = {
  'npm run demo': 'it has a bed of its own',
  'npm test': 'it would run this test',
  'npm ci': 'it would remove the packages that this test runs with; the build after it is typed',
  'npx cdk bootstrap': 'the bed has done it',
  'docker build': 'there is no container engine',
  'docker push': 'there is no registry',
  'kubectl --context prod --namespace team-a wait': 'there is no kubelet, so no Pod runs',
};

/** The commands that were typed. */
const typed = new Set<string>();
let bed: Bed;
let controlPlane: ControlPlane;
let webhook: Pod;
let home: string;
let shell: Shell;

beforeAll(async () => {
  bed = await Bed.create({ clusters: [], context: { scheduleEnabled: false }, registersClusters: false });
  await bed.start();
  controlPlane = await startControlPlane({ name: CLUSTER, dir: join(bed.dir, CLUSTER) });
  home = await mkdtemp(join(tmpdir(), 'ecr-anywhere-home-'));
  const kubeconfig = await readFile(controlPlane.adminKubeconfigPath, 'utf8');
  await mkdir(join(home, '.kube'));
  await writeFile(join(home, '.kube', 'config'), kubeconfig.replaceAll(/: bed$/gm, `: ${CLUSTER}`), {
    mode: 0o600,
  });
  shell = await Shell.start(home, bed.operatorEnv);
}, 300_000);

afterAll(async () => {
  await webhook?.stop();
  await controlPlane?.stop();
  await bed?.[Symbol.asyncDispose]();
  if (home) await rm(home, { recursive: true, force: true });
});

/**
 * Types README's command that begins so.
 *
 * @param change adapts it to the bed
 */
async function type(begin: string, change = (line: string) => line): Promise<Ended> {
  const command = COMMANDS.find(({ line }) => line.startsWith(begin));
  if (!command) throw new Error(`README has no command "${begin}"`);
  typed.add(command.line);
  return shell.type(change(command.line));
}

/** The lines that README says a command's block prints. */
function printed(begin: string): string[] {
  const { prints = '' } = COMMANDS.find(({ line }) => line.startsWith(begin)) ?? {};
  return prints.split('\n').filter((line) => line !== '');
}

function expectPrinted(begin: string, output: string): void {
  const lines = printed(begin);
  expect(lines).not.toEqual([]);
  for (const line of lines) expect(output).toMatch(pattern(line));
}

test('the region is set for all steps', async () => {
  expect(await type('export AWS_REGION=')).toMatchObject({ code: 0, stdout: 'eu-central-1' });
});

test('the build succeeds', { timeout: 120_000 }, async () => {
  const { code, stderr } = await type('npm ci', (line) => line.replace('npm ci && ', ''));
  expect(code, stderr).toBe(0);
});

describe('1. the AWS side', () => {
  test('the issuer is read from the cluster', async () => {
    expect(await type('kubectl --context prod get --raw')).toMatchObject({
      code: 0,
      stdout: 'https://kubernetes.default.svc\n',
    });
  });

  test('the settings give the webhook a role with its policy', { timeout: 120_000 }, async () => {
    // The local CloudFormation has no OIDC providers: the template is made, and the bed has deployed the stack without.
    const out = join(home, 'cdk.out');
    // The checkout's own cdk.json stays as it is.
    const context = Object.entries(SETTINGS).map(([name, value]) => {
      const text = typeof value === 'string' ? value : JSON.stringify(value);
      return `-c ${name}='${text.replace('https://ISSUER', 'https://kubernetes.default.svc')}'`;
    });
    const { code, stderr } = await type('npx cdk deploy', (line) =>
      line.replace('cdk deploy', `cdk synth --quiet --output ${out} ${context.join(' ')}`),
    );
    expect(code, stderr).toBe(0);
    const { Outputs, Resources } = JSON.parse(
      await readFile(join(out, 'EcrAnywhere.template.json'), 'utf8'),
    ) as { Outputs: Record<string, unknown>; Resources: Record<string, { Type: string }> };
    const names = printed('npx cdk deploy').map((line) => /^EcrAnywhere\.(\w+) = /.exec(line)?.[1]);
    expect(names).toEqual(['FunctionName', 'WebhookRoleArnprod']);
    expect(Object.keys(Outputs)).toEqual(expect.arrayContaining(names));
    expect(Object.values(Resources)).toContainEqual(
      expect.objectContaining({
        Type: 'AWS::IAM::Role',
        Properties: expect.objectContaining({
          AssumeRolePolicyDocument: expect.objectContaining({
            Statement: [
              expect.objectContaining({
                Condition: {
                  StringEquals: {
                    'kubernetes.default.svc:aud': 'sts.amazonaws.com',
                    'kubernetes.default.svc:sub': `system:serviceaccount:${NAMESPACE}:${RELEASE}`,
                  },
                },
              }),
            ],
          }),
          Policies: [expect.objectContaining({ PolicyName: 'Pull' })],
        }),
      }),
    );
  });
});

describe('2. the webhook', () => {
  test("the role's ARN is read from the stack", async () => {
    // The bed's stack has the refresher's role in place of the webhook's.
    const { code, stdout } = await type('role=', (line) => line.replace('WebhookRoleArnprod', 'RoleArn'));
    expect(stdout).toMatch(/^arn:aws:iam::\d{12}:role\/\S+$/);
    expect(code).toBe(0);
  });

  test('the chart is installed', async () => {
    // No kubelet makes the pods ready, and not every user may listen on port 443.
    const { code, stderr } = await type(
      'helm install',
      (line) => `${line.replace('--wait --atomic ', '')} --set service.port=${SERVICE_PORT}`,
    );
    expect(code, stderr).toBe(0);
    await prepareNamespace(controlPlane);
    webhook = await startPod(controlPlane, NAMESPACE, RELEASE, {
      bundle: join(ROOT, 'dist/webhook.mjs'),
      ip: await serviceAddress(controlPlane),
      ecrUrl: bed.ecr.url,
    });
  });

  test('helm test passes', { timeout: 120_000 }, async () => {
    const services = { [`${RELEASE}.${NAMESPACE}.svc`]: await serviceAddress(controlPlane) };
    const [{ code, stderr }, { stdout }] = await Promise.all([
      // The log of a pod that is on no node is empty.
      type('helm test'),
      runPodToItsEnd(controlPlane, NAMESPACE, `${RELEASE}-test`, join(ROOT, 'dist/verify.mjs'), services),
    ]);
    expect(code, stderr).toBe(0);
    expectPrinted('helm test', stdout);
  });
});

test('3. the cluster is registered', async () => {
  const { code, stdout, stderr } = await type('npx ecr-anywhere register');
  expect(code, stderr).toBe(0);
  expectPrinted('npx ecr-anywhere register', stdout);
});

describe('4. the Secret', () => {
  test('the namespace is enabled', async () => {
    expect(await type('kubectl --context prod create namespace')).toMatchObject({ code: 0 });
    expect(await type('kubectl --context prod label namespace')).toMatchObject({ code: 0 });
  });

  test('it has credentials as soon as it is created', async () => {
    const file = join(home, 'secret.yaml');
    await writeFile(file, SECRET);
    expect(
      await type('kubectl --context prod apply -f secret.yaml', (line) => line.replace('secret.yaml', file)),
    ).toMatchObject({ code: 0 });
    const { code, stdout } = await type('kubectl --context prod --namespace team-a get secret');
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      'ecr-anywhere.centml.ai/expires_at': expect.stringMatching(/^\d{4}-/),
      'ecr-anywhere.centml.ai/updated_at': expect.stringMatching(/^\d{4}-/),
    });
  });
});

test('5. the Pod uses the Secret', async () => {
  const file = join(home, 'pod.yaml');
  await writeFile(file, POD);
  expect(
    await type('kubectl --context prod apply -f pod.yaml', (line) => line.replace('pod.yaml', file)),
  ).toMatchObject({ code: 0 });
  const { stdout } = await controlPlane.kubectl(['get', 'pod', 'app', '-n', 'team-a', '-o', 'json']);
  const [name = ''] = /\n {2}name: (\S+)/.exec(SECRET)?.slice(1) ?? [];
  expect(JSON.parse(stdout)).toMatchObject({ spec: { imagePullSecrets: [{ name }] } });
});

describe('operating', () => {
  interface Answer {
    readonly clusters: readonly object[];
  }
  const run = async () => (await bed.deployment.invoke()).payload as Answer;

  test('status lists the cluster', async () => {
    const { code, stdout } = await type('npx ecr-anywhere status');
    expect(stdout).toMatch(/^prod /m);
    expect(code).toBe(0);
  });

  test('doctor finds nothing', async () => {
    const { code, stdout } = await type('npx ecr-anywhere doctor');
    expect(code, stdout).toBe(0);
  });

  test('refresh requests what is due, and all Secrets with the option that is named beside it', async () => {
    expect(await type('npx ecr-anywhere refresh')).toMatchObject({ code: 0 });
    const calls = bed.ecr.calls.length;
    const { code, stdout } = await type('npx ecr-anywhere refresh', (line) => {
      expect(README).toContain('`--force`');
      return `${line} --force`;
    });
    expect(stdout).toMatch(/^team-a\/ecr +forced +refreshed +\d{4}-\d\d-\d\dT/m);
    expect(code).toBe(0);
    expect(bed.ecr.calls.length).toBe(calls + 1);
  });

  test('docs/managed-secrets.md gives one Secret a token that is not from the cache', async () => {
    const page = await readFile(join(ROOT, 'docs/managed-secrets.md'), 'utf8');
    const commands = commandsOf(page).filter(({ line }) => /^now=|marked_for_update_at/.test(line));
    const typeAll = async (change = (line: string) => line) => {
      const calls = bed.ecr.calls.length;
      for (const { line } of commands) expect(await shell.type(change(line))).toMatchObject({ code: 0 });
      return bed.ecr.calls.length - calls;
    };
    expect(await typeAll()).toBe(1);
    // Two marks of one second would be one request.
    const withFraction = (line: string, digit: number) => line.replace('%SZ', `%S.${digit}Z`);
    expect(await typeAll((line) => withFraction(line, 1).replace(/ \S+force=\S+/, ''))).toBe(0);
    expect(await typeAll((line) => withFraction(line, 2))).toBe(1);
  });

  test('pause and resume stop and continue refreshes', async () => {
    expect(await type('npx ecr-anywhere pause')).toMatchObject({ code: 0 });
    expect(await run()).toMatchObject({ clusters: [{ cluster: CLUSTER, isPaused: true }] });
    expect(await type('npx ecr-anywhere resume')).toMatchObject({ code: 0 });
    expect(await run()).toMatchObject({ clusters: [{ cluster: CLUSTER, served: true }] });
  });

  test('unregister revokes the token and deletes the registration', { timeout: 120_000 }, async () => {
    const token = ['get', 'secret', 'ecr-anywhere-refresher-token', '-n', NAMESPACE];
    expect(await controlPlane.kubectl(token, { mayFail: true })).toMatchObject({ code: 0 });
    expect(await type('npx ecr-anywhere unregister')).toMatchObject({ code: 0 });
    expect(await controlPlane.kubectl(token, { mayFail: true })).toMatchObject({
      stderr: expect.stringContaining('NotFound'),
    });
    expect((await bed.deployment.invoke({ action: 'status' })).payload).toMatchObject({ clusters: [] });
  });

  test('the cluster can be registered again at once', { timeout: 120_000 }, async () => {
    expect(await type('npx ecr-anywhere register')).toMatchObject({ code: 0 });
  });
});

test('every command of README was typed, or is one that the bed cannot do', () => {
  const begins = Object.keys(NOT_TYPED);
  const left = COMMANDS.map(({ line }) => line).filter((line) => !typed.has(line));
  expect(left.filter((line) => !begins.some((begin) => line.startsWith(begin)))).toEqual([]);
});
