// The deployed function's AWS identity, for the imitation of STS: the local AWS derives the credentials of the function's
// role session from two ARNs (MiniStack, core/lambda_runtime.py, execution_credentials).
import { createHash } from 'node:crypto';
import type { Principal } from '../bed/caller-identity.ts';
import type { Deployment } from '../bed/deployment.ts';

/** The role session by its access key, in the form of `settings.principals` of an AwsEndpoint. */
export function functionPrincipal({
  emulator,
  functionName,
  outputs,
}: Deployment): Record<string, Principal> {
  const { account, region } = emulator;
  const roleArn = outputs.RoleArn ?? '';
  const role = roleArn.slice(roleArn.lastIndexOf('/') + 1);
  const functionArn = `arn:aws:lambda:${region}:${account}:function:${functionName}`;
  const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');
  const digest = sha256(`${functionArn}:${roleArn}`);
  const session = functionName.slice(0, 64);
  return {
    [`ASIA${digest.slice(0, 16).toUpperCase()}`]: {
      secretAccessKey: sha256(`secret:${digest}`),
      sessionToken: sha256(`token:${digest}`),
      arn: `arn:aws:sts::${account}:assumed-role/${role}/${session}`,
      account,
      userId: `AROAEXAMPLE:${session}`,
    },
  };
}
