// The roles that docs/command-line.md lists for an operator: with them alone, register and doctor work completely, and
// without any one of their rules register is denied.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { EXIT } from '../../../../cli/output/errors.ts';
import type { ControlPlane } from '../../../bed/control-plane.ts';
import { Bed } from '../../../bed/up.ts';
import { type CommandLine, startCommandLine } from '../../command-line.ts';
import { createManagedSecret } from '../../operator.ts';

interface Rule {
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
}
interface Role {
  readonly kind: 'ClusterRole' | 'Role';
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly rules: readonly Rule[];
}

const page = await readFile(new URL('../../../../docs/command-line.md', import.meta.url), 'utf8');
const [, section = ''] = page.split('## What the operator needs in the cluster\n');
/** The roles for register, and those for doctor. */
const [ofRegister = [], ofDoctor = []] = [...section.matchAll(/```yaml\n([^`]*)```/g)].map(([, yaml = '']) =>
  parseAllDocuments(yaml).map((document) => document.toJS() as Role),
);
const RULES = ofRegister.flatMap(({ kind, rules }) =>
  rules.map((rule) => ({ title: `${kind}: ${rule.verbs} ${rule.resources}`, rule })),
);
const TOKEN_SECRET = 'ecr-anywhere-refresher-token';

let bed: Bed;
let alpha: ControlPlane;
let cli: CommandLine;
beforeAll(async () => {
  bed = await Bed.create({
    clusters: ['alpha'],
    context: { scheduleEnabled: false },
    registersClusters: false,
  });
  await bed.start();
  alpha = bed.cluster('alpha').controlPlane;
  const KUBECONFIG = join(bed.dir, 'operator.kubeconfig');
  await writeFile(KUBECONFIG, await alpha.kubeconfigFor('operator'));
  cli = await startCommandLine({ ...bed.operatorEnv, KUBECONFIG });
  await createManagedSecret(alpha);
});
afterAll(async () => {
  await cli?.[Symbol.asyncDispose]();
  await bed?.[Symbol.asyncDispose]();
});

/** Replaces the roles of the operator. */
async function give(roles: readonly Role[]): Promise<void> {
  const all = 'clusterroles,clusterrolebindings,roles,rolebindings';
  await alpha.kubectl(['delete', all, '--selector=of=operator', '--all-namespaces']);
  const labels = { of: 'operator' };
  const items = roles.flatMap((role) => {
    const { kind, metadata } = role;
    return [
      { ...role, metadata: { ...metadata, labels } },
      {
        apiVersion: 'rbac.authorization.k8s.io/v1',
        kind: `${kind}Binding`,
        metadata: { ...metadata, labels },
        roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind, name: metadata.name },
        subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name: 'operator' }],
      },
    ];
  });
  const input = JSON.stringify({ apiVersion: 'v1', kind: 'List', items });
  await alpha.kubectl(['apply', '-f', '-'], { input });
}

const without = (roles: readonly Role[], rule: Rule) =>
  roles.map((role) => ({ ...role, rules: role.rules.filter((one) => one !== rule) }));

const run = (args: string) => cli.run(args.split(' '));

test('the page lists roles for register and for doctor, without wildcards', () => {
  expect(ofRegister.map(({ kind }) => kind)).toEqual(['ClusterRole', 'Role']);
  expect(ofDoctor.map(({ kind }) => kind)).toEqual(['ClusterRole', 'Role']);
  expect(JSON.stringify([ofRegister, ofDoctor])).not.toContain('*');
});

describe('register', () => {
  const deleteSecret = () =>
    alpha.kubectl(['delete', 'secret', TOKEN_SECRET, '--namespace', 'ecr-anywhere', '--ignore-not-found']);
  // Without the Secret, register needs every right that it can need.
  beforeEach(deleteSecret);

  test('works with the roles, also if it has to create the Secret, and if an earlier attempt did not complete', async () => {
    await give(ofRegister);
    const registered = await run('register alpha');
    expect(registered, registered.stderr).toMatchObject({ code: 0, stderr: '' });
    await run('unregister alpha');
    const failed = await run('register alpha --server https://127.0.0.1:1');
    expect(failed).toMatchObject({ code: EXIT.unhealthy });
    expect(await run('register alpha')).toMatchObject({ code: 0, stderr: '' });
    await run('unregister alpha');
  });

  test.each(RULES)('is denied without $title', async ({ rule }) => {
    await give(without(ofRegister, rule));
    const { code, stderr, stdout } = await run('register alpha --output json');
    expect({ code, stdout }, stderr).toEqual({ code: EXIT.denied, stdout: '' });
    expect(JSON.parse(stderr)).toMatchObject({
      error: { code: 'kubernetes-forbidden', hint: expect.stringContaining('docs/command-line.md') },
    });
    // At most a registration that is not complete.
    const { clusters } = await cli.json<{ clusters: { state: string }[] }>(['status']);
    expect(clusters.filter(({ state }) => state !== 'incomplete')).toEqual([]);
    await run('unregister alpha --keep-token');
  });
});

describe('doctor', () => {
  beforeAll(async () => {
    await bed.cluster('alpha').webhook.upgrade({});
    await give(ofRegister);
    expect(await run('register alpha')).toMatchObject({ code: 0 });
  });

  interface Result {
    readonly findings: readonly { check: string; verdict: string; code?: string }[];
  }
  const notPassed = async () => {
    const { findings } = await cli.json<Result>(['doctor', 'alpha']);
    return findings.filter(({ verdict }) => verdict !== 'passed').map(({ check }) => check);
  };
  const asked = (rule: Rule) => rule.resources.includes('subjectaccessreviews');
  /** The ClusterRole of register, as far as doctor needs it, too. */
  const shared = () =>
    ofRegister
      .filter(({ kind }) => kind === 'ClusterRole')
      .map((role) => ({ ...role, rules: role.rules.filter((rule) => !asked(rule)) }));

  test('does every check with these roles', async () => {
    await give([...shared(), ...ofDoctor]);
    expect(await notPassed()).toEqual([]);
    expect(await run('doctor alpha')).toMatchObject({ code: 0 });
  });

  test('skips only the checks of labels and mutators without the permission to list Secrets', async () => {
    const creating = ofDoctor.map((role) => ({
      ...role,
      rules: role.rules.map((rule) => ({ ...rule, verbs: rule.verbs.filter((verb) => verb !== 'list') })),
    }));
    await give([...shared(), ...creating]);
    expect(await notPassed()).toEqual(['labels', 'mutators']);
  });

  test('reports how many pods of an unreachable webhook are ready', async () => {
    await give([...shared(), ...ofDoctor]);
    const { webhook } = bed.cluster('alpha');
    await webhook.program.stop();
    try {
      expect((await run('doctor alpha')).stdout).toMatch(/; \d of its pods are ready/);
    } finally {
      await webhook.start();
    }
  });
});
