// What a kubelet makes of a Deployment's container, where there is none: its environment, and its volumes as files
// below a directory, with every path in the environment moved there.
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { ControlPlane } from './control-plane.ts';

interface Volume {
  readonly name: string;
  readonly secret?: { readonly secretName: string };
  readonly configMap?: { readonly name: string };
  readonly projected?: {
    readonly sources: readonly {
      readonly serviceAccountToken: {
        readonly audience: string;
        readonly expirationSeconds: number;
        readonly path: string;
      };
    }[];
  };
}

interface PodSpec {
  readonly serviceAccountName: string;
  readonly volumes: readonly Volume[];
  readonly containers: readonly [
    {
      readonly env: readonly { readonly name: string; readonly value?: string }[];
      readonly envFrom?: readonly { readonly secretRef: { readonly name: string } }[];
      readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string }[];
    },
  ];
}

export interface Container {
  /** As the Deployment of the moment has it. */
  environment(): Promise<Record<string, string>>;
  /** Writes what is in the volumes at the moment. */
  syncVolumes(): Promise<void>;
}

/** The only container of a Deployment. @param root the directory that stands for the container's / */
export async function containerOf(
  cluster: ControlPlane,
  namespace: string,
  deployment: string,
  root: string,
): Promise<Container> {
  const read = async <Answer>(...what: readonly string[]) => {
    const { stdout } = await cluster.kubectl(['get', ...what, '--namespace', namespace, '-o', 'json']);
    return JSON.parse(stdout) as Answer;
  };
  const spec = async () =>
    (await read<{ spec: { template: { spec: PodSpec } } }>('deployment', deployment)).spec.template.spec;

  /** What is in a volume, by the names of its files. */
  const contents = async (volume: Volume, account: string): Promise<Record<string, Buffer>> => {
    const { secret, configMap, projected } = volume;
    if (secret) return decoded(await read<{ data: Record<string, string> }>('secret', secret.secretName));
    if (configMap) {
      const { data } = await read<{ data: Record<string, string> }>('configmap', configMap.name);
      return Object.fromEntries(Object.entries(data).map(([file, text]) => [file, Buffer.from(text)]));
    }
    const files: Record<string, Buffer> = {};
    for (const { serviceAccountToken } of projected?.sources ?? []) {
      const { audience, expirationSeconds, path } = serviceAccountToken;
      const { stdout } = await cluster.kubectl([
        ...['create', 'token', account, '--namespace', namespace],
        ...[`--audience=${audience}`, `--duration=${expirationSeconds}s`],
      ]);
      files[path] = Buffer.from(stdout.trim());
    }
    return files;
  };

  return {
    async environment() {
      const { env, envFrom = [], volumeMounts } = (await spec()).containers[0];
      const secrets = await Promise.all(
        envFrom.map(async ({ secretRef }) =>
          decoded(await read<{ data: Record<string, string> }>('secret', secretRef.name)),
        ),
      );
      const all = [
        ...secrets.flatMap((secret) => Object.entries(secret).map(([name, value]) => [name, String(value)])),
        ...env.map(({ name, value = '' }) => [name, value]),
      ] as [string, string][];
      const isMounted = (value: string) =>
        volumeMounts.some(({ mountPath }) => value.startsWith(`${mountPath}/`));
      return Object.fromEntries(
        all.map(([name, value]) => [name, isMounted(value) ? join(root, value) : value]),
      );
    },
    async syncVolumes() {
      const { containers, volumes, serviceAccountName } = await spec();
      for (const { name, mountPath } of containers[0].volumeMounts) {
        const volume = volumes.find((candidate) => candidate.name === name);
        if (!volume) throw new Error(`the Deployment mounts ${name}, which is none of its volumes`);
        for (const [file, content] of Object.entries(await contents(volume, serviceAccountName))) {
          const path = join(root, mountPath, file);
          await mkdir(dirname(path), { recursive: true });
          await writeFile(`${path}.new`, content, { mode: 0o600 });
          await rename(`${path}.new`, path);
        }
      }
    },
  };
}

function decoded({ data }: { data: Record<string, string> }): Record<string, Buffer> {
  return Object.fromEntries(Object.entries(data).map(([key, value]) => [key, Buffer.from(value, 'base64')]));
}
