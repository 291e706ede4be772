// AWS as the operator: finds the stack, calls the refresher's function, writes, tags and deletes registered secrets. Never
// reads a registered secret.

import { X509Certificate } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { Agent } from 'node:https';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { getCACertificates } from 'node:tls';
import { CloudFormationClient, DescribeStacksCommand } from '@aws-sdk/client-cloudformation';
import { GetFunctionConfigurationCommand, LambdaClient } from '@aws-sdk/client-lambda';
import { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { GetCallerIdentityCommand, STSClient } from '@aws-sdk/client-sts';
import { fromNodeProviderChain } from '@aws-sdk/credential-providers';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import { DEFAULT_STACK_NAME } from '../../contract/keyless.ts';
import { CLUSTERS_PREFIX, SECRET_PREFIX_VARIABLE } from '../../contract/names.ts';
import { requestLimits } from '../../lib/aws/request-limits.ts';
import { CliError, InterruptedError, REGION_HINT, toCliError } from '../output/errors.ts';
import type { AwsOptions } from '../output/options.ts';
import { addSecret } from '../output/redact.ts';

/** The deployed refresher. */
export interface Stack {
  readonly functionName: string;
  /** ARN of the function's role. */
  readonly roleArn: string;
  readonly stackName: string;
  /** Whether the function is in a VPC, from which it may reach private endpoints. */
  readonly isInVpc: boolean;
  /** Prefix of the registered clusters' secrets. */
  readonly secretPrefix: string;
  /** The customer's key that encrypts them; absent: AWS' own. */
  readonly kmsKeyArn?: string | undefined;
}

const REQUEST_MS = 10_000;
/** How long a change that has been sent may take after Ctrl-C. */
const GRACE_MS = 10_000;

/** The settings of every AWS SDK client. @param requestMs time limit of a response, in milliseconds */
export function clientConfig({ profile, region }: AwsOptions, requestMs = REQUEST_MS) {
  const ca = caBundle(profile);
  const requestHandler = new DiscreetHandler({
    ...requestLimits(requestMs),
    // The SDK ignores HTTPS_PROXY otherwise.
    httpsAgent: new Agent({ keepAlive: true, proxyEnv: process.env, ...(ca && { ca }) }),
  });
  const named = profile === undefined ? {} : { profile };
  return {
    ...named,
    ...(region !== undefined && { region }),
    requestHandler,
    // The SDK's own SSO client would not trust the bundle. It takes its region from the profile.
    ...(ca && { credentials: fromNodeProviderChain({ ...named, clientConfig: { requestHandler } }) }),
  };
}

/** The file of AWS_CA_BUNDLE, or else the one that ca_bundle of the profile names, as in the AWS CLI. */
function caBundlePath(profile = process.env.AWS_PROFILE || 'default'): string | undefined {
  const { AWS_CA_BUNDLE, AWS_CONFIG_FILE = join(homedir(), '.aws', 'config') } = process.env;
  if (AWS_CA_BUNDLE || !existsSync(AWS_CONFIG_FILE)) return AWS_CA_BUNDLE;
  const sections = readFileSync(AWS_CONFIG_FILE, 'utf8').split(/^\[(?:profile\s+)?/m);
  const section = sections.find((one) => one.split(']')[0]?.trim() === profile);
  return /^ca_bundle\s*=\s*(.*\S)/m.exec(section ?? '')?.[1];
}

/**
 * The certificate authorities of a bundle, for endpoints of AWS only. The AWS CLI trusts these instead of its own; here
 * they are added to Node's, which include those of NODE_EXTRA_CA_CERTS.
 *
 * @throws CliError if the file cannot be read, or holds no certificate
 */
function caBundle(profile: string | undefined): string[] | undefined {
  const path = caBundlePath(profile);
  if (!path) return undefined;
  try {
    const pem = readFileSync(path, 'utf8');
    // TLS ignores a file without certificates.
    new X509Certificate(pem);
    return [...getCACertificates('default'), pem];
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    const reason = code.startsWith('ERR_') ? 'it holds no PEM certificate' : code;
    throw new CliError(
      'ca-bundle-unreadable',
      `The bundle of certificate authorities ${path} cannot be used: ${reason}.`,
      'Correct the variable AWS_CA_BUNDLE, or ca_bundle in the AWS profile.',
      error,
    );
  }
}

/** Keeps the session token out of messages: errors of AWS may quote the request. */
class DiscreetHandler extends NodeHttpHandler {
  override handle(...[request, options]: Parameters<NodeHttpHandler['handle']>) {
    addSecret(request.headers['x-amz-security-token']);
    return super.handle(request, options);
  }
}

/** AWS, as the operator. */
export class Aws {
  readonly options: AwsOptions;
  /** Aborts requests. */
  readonly signal: AbortSignal;

  constructor(options: AwsOptions, signal: AbortSignal) {
    this.options = options;
    this.signal = signal;
    for (const name of ['AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN']) addSecret(process.env[name]);
  }

  secrets(): SecretsManagerClient {
    return new SecretsManagerClient(clientConfig(this.options));
  }

  /** @throws CliError if no option, environment variable or profile sets a region */
  async region(): Promise<string> {
    return new STSClient(clientConfig(this.options)).config.region().catch((error: unknown) => {
      throw new CliError('no-region', 'No AWS region is configured.', REGION_HINT, error);
    });
  }

  /** The operator's AWS identity. @throws CliError */
  async caller(): Promise<{ arn: string }> {
    const sts = new STSClient(clientConfig(this.options));
    await this.region();
    const { Arn = '' } = await this.ask('reading your AWS identity', (abortSignal) =>
      sts.send(new GetCallerIdentityCommand({}), { abortSignal }),
    );
    return { arn: Arn };
  }

  /** Finds the deployed refresher. @throws CliError if there is none */
  async stack(): Promise<Stack> {
    const { stackName = DEFAULT_STACK_NAME, function: name } = this.options;
    const region = await this.region();
    if (name !== undefined) return { functionName: name, stackName, ...(await this.#describe(name)) };
    const client = new CloudFormationClient(clientConfig(this.options));
    const missing = (message: string) =>
      new CliError(
        'stack-not-found',
        message,
        'Deploy it (npx cdk deploy), or select it with --stack-name, --region and --profile. If the refresher is part of your own stack, select it with --function.',
      );
    const { Stacks = [] } = await this.ask(`finding the stack ${stackName}`, (abortSignal) =>
      client
        .send(new DescribeStacksCommand({ StackName: stackName }), { abortSignal })
        .catch((error: Error) => {
          if (error.name === 'ValidationError') throw missing(`There is no stack ${stackName} in ${region}.`);
          throw error;
        }),
    );
    const outputs = Object.fromEntries(
      (Stacks[0]?.Outputs ?? []).map(({ OutputKey = '', OutputValue = '' }) => [OutputKey, OutputValue]),
    );
    const { FunctionName, RoleArn, SubnetIds, SecretPrefix = CLUSTERS_PREFIX, KmsKeyArn } = outputs;
    if (!FunctionName || !RoleArn) throw missing(`The stack ${stackName} in ${region} has no refresher.`);
    return {
      ...{ functionName: FunctionName, roleArn: RoleArn, stackName },
      ...{ isInVpc: SubnetIds !== undefined, secretPrefix: SecretPrefix, kmsKeyArn: KmsKeyArn },
    };
  }

  async #describe(functionName: string): Promise<Omit<Stack, 'functionName' | 'stackName'>> {
    const client = new LambdaClient(clientConfig(this.options));
    const {
      Role = '',
      VpcConfig,
      Environment,
      KMSKeyArn,
    } = await this.ask(`finding the function ${functionName}`, (abortSignal) =>
      client
        .send(new GetFunctionConfigurationCommand({ FunctionName: functionName }), { abortSignal })
        .catch((error: Error) => {
          if (error.name === 'ResourceNotFoundException')
            throw new CliError(
              'function-not-found',
              `There is no function ${functionName}.`,
              'Correct --function, --region or --profile.',
            );
          throw error;
        }),
    );
    // AWS does not decrypt the variables for an operator who may not use the key.
    if (Environment?.Error)
      throw new CliError(
        'aws-access-denied',
        `AWS cannot read the environment variables of the function ${functionName}: ${Environment.Error.Message}`,
        `Allow your AWS identity kms:Decrypt with the key ${KMSKeyArn}.`,
      );
    return {
      roleArn: Role,
      isInVpc: Boolean(VpcConfig?.VpcId),
      secretPrefix: Environment?.Variables?.[SECRET_PREFIX_VARIABLE] ?? CLUSTERS_PREFIX,
      kmsKeyArn: KMSKeyArn,
    };
  }

  /** Sends a request that changes nothing. @param action such as `finding the stack` @throws CliError; InterruptedError after Ctrl-C */
  async ask<T>(action: string, request: (signal: AbortSignal) => Promise<T>): Promise<T> {
    try {
      return await request(this.signal);
    } catch (error) {
      this.signal.throwIfAborted();
      throw toCliError(error, this.#withProfile(action));
    }
  }

  /**
   * Sends a request that changes something. After Ctrl-C it still waits for the response, so that the command can say what
   * has changed.
   *
   * @param action such as `registering prod`
   * @throws CliError; InterruptedError if there was no response in time after Ctrl-C
   */
  async change<T>(action: string, request: (signal: AbortSignal) => Promise<T>): Promise<T> {
    this.signal.throwIfAborted();
    const grace = new AbortController();
    const interrupt = () => {
      setTimeout(() => grace.abort(new InterruptedError()), GRACE_MS).unref();
    };
    this.signal.addEventListener('abort', interrupt, { once: true });
    try {
      return await request(grace.signal);
    } catch (error) {
      this.signal.throwIfAborted();
      throw toCliError(error, this.#withProfile(action));
    } finally {
      this.signal.removeEventListener('abort', interrupt);
    }
  }

  /** Names the profile, because a mistyped profile fails like missing credentials. */
  #withProfile(action: string): string {
    const { profile } = this.options;
    return profile === undefined ? action : `${action} (profile ${profile})`;
  }
}
