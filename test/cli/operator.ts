// A bed with two clusters and an operator whose requests to AWS and to the clusters pass through proxies. Shared by the
// tests of interruptions and credential leaks.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  DescribeSecretCommand,
  ListSecretsCommand,
  SecretsManagerClient,
} from '@aws-sdk/client-secrets-manager';
import type { ControlPlane } from '../bed/control-plane.ts';
import { Bed } from '../bed/up.ts';
import { type CommandLine, startCommandLine } from './command-line.ts';
import { startListLag } from './list-lag.ts';
import { type ClusterWire, startAwsWire, startClusterWire, type Wire } from './wire.ts';

export interface Operator extends AsyncDisposable {
  readonly bed: Bed;
  readonly cli: CommandLine;
  readonly aws: Wire;
  /** A proxy for each cluster's API server. */
  readonly clusters: Readonly<Record<'alpha' | 'beta', ClusterWire>>;
  /** A kubeconfig of each cluster's administrator that connects to the proxy. */
  readonly kubeconfigs: Readonly<Record<'alpha' | 'beta', string>>;
  /** All objects that a command could change, to compare before and after it. */
  state(): Promise<unknown>;
  /** Makes the proxies forward every request again, and clears their recorded calls. */
  reset(): void;
}

/** Creates an enabled namespace with a managed Secret. */
export const createManagedSecret = (cluster: ControlPlane) =>
  cluster.kubectl(['apply', '-f', '-'], {
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

/** Starts the bed. No cluster is registered. */
export async function startOperator(): Promise<Operator> {
  const stack = new AsyncDisposableStack();
  const lag = stack.use(await startListLag());
  const bed = stack.use(
    await Bed.create({
      clusters: ['alpha', 'beta'],
      context: { scheduleEnabled: false },
      registersClusters: false,
      functionEnv: lag.env,
    }),
  );
  await bed.start();
  lag.attach(bed.deployment.emulator);
  const aws = stack.use(await startAwsWire(bed.deployment.emulator));
  const clusters = {
    alpha: stack.use(await startClusterWire(bed.cluster('alpha').controlPlane)),
    beta: stack.use(await startClusterWire(bed.cluster('beta').controlPlane)),
  };
  const kubeconfigs = { alpha: join(bed.dir, 'alpha.kubeconfig'), beta: join(bed.dir, 'beta.kubeconfig') };
  for (const name of ['alpha', 'beta'] as const) {
    const admin = await readFile(bed.cluster(name).controlPlane.adminKubeconfigPath, 'utf8');
    await writeFile(kubeconfigs[name], clusters[name].through(admin), { mode: 0o600 });
  }
  const cli = stack.use(
    await startCommandLine({ ...bed.operatorEnv, AWS_ENDPOINT_URL: aws.url, KUBECONFIG: kubeconfigs.beta }),
  );
  const secrets = new SecretsManagerClient(bed.deployment.emulator.clientConfig);
  return {
    ...{ bed, cli, aws, clusters, kubeconfigs },
    async state() {
      const { SecretList = [] } = await secrets.send(new ListSecretsCommand({}));
      const registered = await Promise.all(
        SecretList.map(async ({ Name }) => {
          const described = await secrets.send(new DescribeSecretCommand({ SecretId: Name }));
          const { Tags = [], VersionIdsToStages = {} } = described;
          return {
            Name,
            tags: Tags,
            versions: Object.entries(VersionIdsToStages).filter(([, all]) => all.length),
          };
        }),
      );
      const objects = await Promise.all(
        ['alpha', 'beta'].map(async (name) => {
          const { stdout } = await bed
            .cluster(name)
            .controlPlane.kubectl([
              ...['get', 'secrets,serviceaccounts,configmaps,namespaces,mutatingwebhookconfigurations'],
              ...['--all-namespaces', '-o'],
              'jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name} {.metadata.resourceVersion}{"\\n"}{end}',
            ]);
          return stdout.split('\n').sort();
        }),
      );
      return { registered: registered.sort((a, b) => ((a.Name ?? '') < (b.Name ?? '') ? -1 : 1)), objects };
    },
    reset() {
      for (const wire of [aws, clusters.alpha, clusters.beta]) {
        wire.handle = () => undefined;
        wire.calls.length = 0;
      }
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}
