// What the steps of register share: the command with its cluster and stack, and the credential that it obtains.
import type { Aws, Stack } from '../../aws/aws.ts';
import type { Refresher } from '../../aws/refresher.ts';
import type { PendingRegistration } from '../../aws/registration.ts';
import type { Installation } from '../../kubernetes/chart.ts';
import type { Kubernetes, Server } from '../../kubernetes/client.ts';
import type { Identity } from '../../kubernetes/identity.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import type { Credential } from './credential.ts';
import type { RegisterOptions } from './options.ts';

export interface RegisterContext {
  readonly name: string;
  readonly options: RegisterOptions;
  readonly aws: Aws;
  readonly stack: Stack;
  readonly refresher: Pick<Refresher, 'inspectVersion'>;
  /** The cluster of the operator's context. */
  readonly kubernetes: Kubernetes;
  /** UID of that cluster. */
  readonly uid: string;
  readonly installation: Installation;
  readonly registration: PendingRegistration;
  readonly commands: ShellCommands;
}

export interface ObtainedCredential extends Credential {
  readonly server: Server;
  /** Absent if only the refresher can authenticate with the credential. */
  readonly identity?: Identity;
  readonly expectedIdentity: Identity;
  /** Of an EKS cluster. */
  readonly eks?: { readonly name: string; readonly region: string };
  /** Text for the operator. */
  readonly note?: string;
  /** Added to the result of the command. */
  readonly details?: {
    /** The AuthenticationConfiguration (YAML) that the API server of a keyless cluster needs. */
    readonly authenticationConfig?: string;
    /** The change to the access entry of an EKS cluster; of a dry run, the change that would be made. */
    readonly accessEntry?: 'created' | 'group-added' | 'unchanged';
  };
  /** The hint if the API server rejects the credential (HTTP 401). */
  readonly unauthorizedHint: string;
}
