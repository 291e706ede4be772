// The operator's own AWS identity, and what it is used for: finding the stack, invoking the refresher, and writing,
// tagging and deleting registered secrets. Never for reading one.

import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Agent } from 'node:https';
import { getCACertificates } from 'node:tls';
import { CloudFormationClient, DescribeStacksCommand } from '@aws-sdk/client-cloudformation';
import { GetFunctionConfigurationCommand, LambdaClient } from '@aws-sdk/client-lambda';
import { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { GetCallerIdentityCommand, STSClient } from '@aws-sdk/client-sts';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import { DEFAULT_STACK_NAME } from '../../contract/keyless.ts';
import { CliError, InterruptedError, toCliError } from '../output/errors.ts';
import type { AwsOptions } from '../output/options.ts';
import { addSecret } from '../output/redact.ts';

/** The deployed refresher. */
export interface Stack {
  readonly functionName: string;
  /** ARN of the function's role. */
  readonly roleArn: string;
  readonly stackName: string;
}

const CONNECT_MS = 5_000;
const REQUEST_MS = 10_000;
/** After Ctrl-C, for the answer to a change that is on its way. */
const GRACE_MS = 10_000;

/** Settings that every client of the AWS SDK takes. @param requestMs milliseconds that an answer may take */
export function clientConfig({ profile, region }: AwsOptions, requestMs = REQUEST_MS) {
  return {
    ...(profile !== undefined && { profile }),
    ...(region !== undefined && { region }),
    requestHandler: new DiscreetHandler({
      connectionTimeout: CONNECT_MS,
      requestTimeout: requestMs,
      throwOnRequestTimeout: true,
      // Without it the SDK pays no heed to HTTPS_PROXY.
      httpsAgent: new Agent({ keepAlive: true, proxyEnv: process.env, ...caBundle() }),
    }),
  };
}

/**
 * The certificate authorities of AWS_CA_BUNDLE, for endpoints of AWS only. The AWS CLI trusts these instead of its own;
 * here they are added to Node's, which include those of NODE_EXTRA_CA_CERTS.
 *
 * @throws CliError if the file cannot be read, or holds no certificate
 */
function caBundle(): { readonly ca?: string[] } {
  const path = process.env.AWS_CA_BUNDLE;
  if (!path) return {};
  try {
    const pem = readFileSync(path, 'utf8');
    // TLS ignores a file without certificates.
    new X509Certificate(pem);
    return { ca: [...getCACertificates('default'), pem] };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const isMissing = code !== undefined && !code.startsWith('ERR_');
    throw new CliError(
      'ca-bundle-unreadable',
      isMissing
        ? `The file of AWS_CA_BUNDLE, ${path}, cannot be read: ${code}.`
        : `The file of AWS_CA_BUNDLE, ${path}, holds no PEM certificate.`,
      'Correct the variable AWS_CA_BUNDLE, or unset it.',
      error,
    );
  }
}

/** AWS' errors may quote what was sent: the session's token, wherever the SDK has it from, is never shown. */
class DiscreetHandler extends NodeHttpHandler {
  override handle(...[request, options]: Parameters<NodeHttpHandler['handle']>) {
    addSecret(request.headers['x-amz-security-token']);
    return super.handle(request, options);
  }
}

/** AWS, as the operator. */
export class Aws {
  readonly options: AwsOptions;
  /** Ends what is asked. */
  readonly signal: AbortSignal;

  constructor(options: AwsOptions, signal: AbortSignal) {
    this.options = options;
    this.signal = signal;
    for (const name of ['AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN']) addSecret(process.env[name]);
  }

  secrets(): SecretsManagerClient {
    return new SecretsManagerClient(clientConfig(this.options));
  }

  /** @throws CliError where no region is named anywhere */
  async region(): Promise<string> {
    return new STSClient(clientConfig(this.options)).config.region().catch((error: unknown) => {
      throw new CliError('no-region', 'no AWS region', 'give --region, or set AWS_REGION', error);
    });
  }

  /** Who the operator is. @throws CliError */
  async caller(): Promise<{ arn: string }> {
    const sts = new STSClient(clientConfig(this.options));
    await this.region();
    const { Arn = '' } = await this.ask('asking AWS who you are', (abortSignal) =>
      sts.send(new GetCallerIdentityCommand({}), { abortSignal }),
    );
    return { arn: Arn };
  }

  /** The deployed refresher. @throws CliError where there is none */
  async stack(): Promise<Stack> {
    const { stackName = DEFAULT_STACK_NAME, function: name } = this.options;
    const region = await this.region();
    if (name !== undefined) return { functionName: name, stackName, roleArn: await this.#roleOf(name) };
    const client = new CloudFormationClient(clientConfig(this.options));
    const missing = (why: string) =>
      new CliError(
        'stack-not-found',
        `${why} in ${region}`,
        'deploy it (npx cdk deploy), or name it: --stack-name, --region, --profile; --function where it is part of a stack of yours',
      );
    const { Stacks = [] } = await this.ask(`looking for the stack ${stackName}`, (abortSignal) =>
      client
        .send(new DescribeStacksCommand({ StackName: stackName }), { abortSignal })
        .catch((error: Error) => {
          if (error.name === 'ValidationError') throw missing(`there is no stack ${stackName}`);
          throw error;
        }),
    );
    const outputs = Object.fromEntries(
      (Stacks[0]?.Outputs ?? []).map(({ OutputKey = '', OutputValue = '' }) => [OutputKey, OutputValue]),
    );
    const { FunctionName, RoleArn } = outputs;
    if (!FunctionName || !RoleArn) throw missing(`the stack ${stackName} is no refresher's`);
    return { functionName: FunctionName, roleArn: RoleArn, stackName };
  }

  async #roleOf(functionName: string): Promise<string> {
    const client = new LambdaClient(clientConfig(this.options));
    const { Role = '' } = await this.ask(`looking for the function ${functionName}`, (abortSignal) =>
      client
        .send(new GetFunctionConfigurationCommand({ FunctionName: functionName }), { abortSignal })
        .catch((error: Error) => {
          if (error.name === 'ResourceNotFoundException')
            throw new CliError(
              'function-not-found',
              `there is no function ${functionName}`,
              '--function, --region',
            );
          throw error;
        }),
    );
    return Role;
  }

  /** Asks AWS something. @throws CliError; InterruptedError where the operator has had enough */
  async ask<T>(what: string, request: (signal: AbortSignal) => Promise<T>): Promise<T> {
    try {
      return await request(this.signal);
    } catch (error) {
      this.signal.throwIfAborted();
      throw toCliError(error, this.#asWhom(what));
    }
  }

  /**
   * Has AWS change something. Ctrl-C waits for the answer: what may or may not have been done cannot be undone.
   *
   * @throws CliError; InterruptedError where there was none in time
   */
  async change<T>(what: string, request: (signal: AbortSignal) => Promise<T>): Promise<T> {
    this.signal.throwIfAborted();
    const patience = new AbortController();
    const interrupt = () => {
      setTimeout(() => patience.abort(new InterruptedError()), GRACE_MS).unref();
    };
    this.signal.addEventListener('abort', interrupt, { once: true });
    try {
      return await request(patience.signal);
    } catch (error) {
      this.signal.throwIfAborted();
      throw toCliError(error, this.#asWhom(what));
    } finally {
      this.signal.removeEventListener('abort', interrupt);
    }
  }

  /** A profile that is not there is told from nobody being signed in by its name. */
  #asWhom(what: string): string {
    const { profile } = this.options;
    return profile === undefined ? what : `${what} (profile ${profile})`;
  }
}
