// What the documentation says an operator needs in a cluster, taken from its page and given to somebody who has nothing
// else: with it register and doctor do all they do, and without one of its rules register is refused.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { EXIT } from '../../../../cli/output/errors.ts';
import type { ControlPlane } from '../../../bed/control-plane.ts';
import { Bed } from '../../../bed/up.ts';
import { type CommandLine, startCommandLine } from '../../command-line.ts';

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
/** Of register, and of doctor. */
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
  await alpha.kubectl(['apply', '-f', '-'], {
    input: `apiVersion: v1
kind: Namespace
metadata: {name: team-a, labels: {ecr-anywhere.centml.ai/namespace: enabled}}
---
apiVersion: v1
kind: Secret
metadata: {name: ecr, namespace: team-a, labels: {ecr-anywhere.centml.ai/managed: "true"}}
type: kubernetes.io/dockerconfigjson
`,
  });
}, 300_000);
afterAll(async () => {
  await cli?.[Symbol.asyncDispose]();
  await bed?.[Symbol.asyncDispose]();
});

/** Makes the roles, and gives them to the operator, who has no other. */
async function give(roles: readonly Role[]): Promise<void> {
  const all = 'clusterroles,clusterrolebindings,roles,rolebindings';
  await alpha.kubectl(['delete', all, '--selector=is=the-operators', '--all-namespaces']);
  const labels = { is: 'the-operators' };
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

test('the page has roles for both, and no wildcard in them', () => {
  expect(ofRegister.map(({ kind }) => kind)).toEqual(['ClusterRole', 'Role']);
  expect(ofDoctor.map(({ kind }) => kind)).toEqual(['ClusterRole', 'Role']);
  expect(JSON.stringify([ofRegister, ofDoctor])).not.toContain('*');
});

describe('register', () => {
  const deleteSecret = () =>
    alpha.kubectl(['delete', 'secret', TOKEN_SECRET, '--namespace', 'ecr-anywhere', '--ignore-not-found']);
  // Whatever is made, is made.
  beforeEach(deleteSecret);

  test('with them, and with a Secret that has to be made', async () => {
    await give(ofRegister);
    const registered = await run('register alpha');
    expect(registered, registered.stderr).toMatchObject({ code: 0, stderr: '' });
    // As they are needed: what fails is taken back.
    await run('unregister alpha');
    const failed = await run('register alpha --server https://127.0.0.1:1');
    expect(failed).toMatchObject({ code: EXIT.unhealthy });
    expect(failed.stderr).not.toContain('taken back');
    const left = await alpha.kubectl(['get', 'secret', TOKEN_SECRET, '--namespace', 'ecr-anywhere'], {
      mayFail: true,
    });
    expect(left.stderr).toContain('NotFound');
  });

  test.each(RULES)('without $title', async ({ rule }) => {
    await give(without(ofRegister, rule));
    const { code, stderr, stdout } = await run('register alpha');
    expect({ code, stdout }, stderr).toEqual({ code: EXIT.denied, stdout: '' });
    expect(stderr).toMatch(/ HTTP 403: .*forbidden.*\n {2}→ .*docs\/command-line\.md/);
    expect((await run('status')).stdout).toContain('No cluster is registered');
  });
});

describe('doctor', () => {
  beforeAll(async () => {
    await bed.cluster('alpha').webhook.upgrade({});
    await give(ofRegister);
    expect(await run('register alpha')).toMatchObject({ code: 0 });
  });

  interface Result {
    readonly allWell: boolean;
    readonly findings: readonly { link: string; verdict: string }[];
  }
  const unknown = async () => {
    const { findings } = await cli.json<Result>(['doctor', 'alpha']);
    return findings.filter(({ verdict }) => verdict !== 'well').map(({ link }) => link);
  };
  const asked = (rule: Rule) => rule.resources.includes('subjectaccessreviews');
  /** The ClusterRole of register, as far as doctor needs it, too. */
  const shared = () =>
    ofRegister
      .filter(({ kind }) => kind === 'ClusterRole')
      .map((role) => ({ ...role, rules: role.rules.filter((rule) => !asked(rule)) }));

  test('with them, every link is looked at', async () => {
    await give([...shared(), ...ofDoctor]);
    expect(await unknown()).toEqual([]);
    expect(await run('doctor alpha')).toMatchObject({ code: 0 });
  });

  test('without the right to list Secrets, their labels are unknown, and the rest is tried', async () => {
    const creating = ofDoctor.map((role) => ({
      ...role,
      rules: role.rules.map((rule) => ({ ...rule, verbs: rule.verbs.filter((verb) => verb !== 'list') })),
    }));
    await give([...shared(), ...creating]);
    expect(await unknown()).toEqual(['namespaces', 'secrets']);
  });

  test('a webhook that is not there: why says the Deployment', async () => {
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
