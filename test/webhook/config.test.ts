// The webhook's settings: the defaults, the bounds, and that all problems are reported together.
import { describe, expect, test } from 'vitest';
import { ENVIRONMENT, readConfig } from '../../webhook/config.ts';

const ROLE = 'arn:aws-us-gov:iam::123456789012:role/pull';
const OTHER_ROLE = 'arn:aws-us-gov:iam::123456789012:role/webhook';
const MINIMAL = { AWS_REGION: 'eu-central-1' };

test('needs only a region', () => {
  expect(readConfig(MINIMAL)).toEqual({
    host: undefined,
    port: 8443,
    certFile: '/etc/webhook/certs/tls.crt',
    keyFile: '/etc/webhook/certs/tls.key',
    answerWithinMs: 8_500,
    drainMs: 5_000,
    logLevel: 'info',
    refresherUsername: undefined,
    provisionSecret: undefined,
    region: 'eu-central-1',
    policyFile: '/etc/webhook/policy/policy.yaml',
    metricsPort: undefined,
    assumeRole: undefined,
    identity: { region: 'eu-central-1', roleArn: undefined, account: undefined },
  });
});

test('reads every setting', () => {
  const env = {
    HOST: '127.0.0.1',
    PORT: '9443',
    CERT_FILE: 'a.crt',
    KEY_FILE: 'a.key',
    TIMEOUT_SECONDS: '30',
    DRAIN_SECONDS: '0.5',
    LOG_LEVEL: 'debug',
    REFRESHER_USERNAME: 'system:serviceaccount:a:b',
    PROVISION_SECRET: 'ecr',
    AWS_REGION: 'us-gov-west-1',
    POLICY_FILE: 'policy.yaml',
    METRICS_PORT: '9090',
    ASSUME_ROLE_ARN: ROLE,
    ASSUME_ROLE_EXTERNAL_ID: 'cluster-1',
    AWS_ROLE_ARN: OTHER_ROLE,
    AWS_WEB_IDENTITY_TOKEN_FILE: '/aws/token',
    AWS_ACCESS_KEY_ID: 'key',
    AWS_PROFILE: 'profile',
    SERVER_NAME: 'a.b.svc',
    TLS_SECRET: 'b/a-tls',
    WEBHOOK_CONFIGURATION: 'a',
    CLIENT_CA_FILE: 'ca.crt',
    CLIENT_NAMES: 'kube-apiserver, spiffe://example.com/api',
    CALLER_PROOF_SECRET: 'b/a-proof',
    CALLER_PROOF_DIR: '/proof',
    SERVICE_ACCOUNT_DIR: '/token',
    KUBERNETES_SERVICE_HOST: 'fd00::1',
    KUBERNETES_SERVICE_PORT: '443',
    AWS_SECRET_ACCESS_KEY: 'hidden',
  };
  expect(Object.values(ENVIRONMENT).every((name) => name in env)).toBe(true);
  expect(readConfig(env)).toEqual({
    host: '127.0.0.1',
    port: 9443,
    certFile: 'a.crt',
    keyFile: 'a.key',
    answerWithinMs: 28_500,
    drainMs: 500,
    logLevel: 'debug',
    refresherUsername: 'system:serviceaccount:a:b',
    provisionSecret: 'ecr',
    region: 'us-gov-west-1',
    policyFile: 'policy.yaml',
    metricsPort: 9090,
    serverName: 'a.b.svc',
    ownTls: {
      serverName: 'a.b.svc',
      objects: {
        server: 'https://[fd00::1]:443',
        serviceAccountDir: '/token',
        namespace: 'b',
        secret: 'a-tls',
        configuration: 'a',
        webhook: 'sync.ecr-anywhere.centml.ai',
      },
    },
    clients: { caFile: 'ca.crt', names: ['kube-apiserver', 'spiffe://example.com/api'] },
    ownProof: {
      server: 'https://[fd00::1]:443',
      serviceAccountDir: '/token',
      namespace: 'b',
      secret: 'a-proof',
      configuration: 'a',
      webhook: 'sync.ecr-anywhere.centml.ai',
    },
    proofDir: '/proof',
    assumeRole: { arn: ROLE, externalId: 'cluster-1' },
    identity: { region: 'us-gov-west-1', roleArn: ROLE, account: '123456789012' },
  });
});

test('the identity is the role to assume, or the role of the web identity', () => {
  expect(readConfig({ ...MINIMAL, AWS_ROLE_ARN: OTHER_ROLE }).identity.roleArn).toBe(OTHER_ROLE);
  const both = { ...MINIMAL, AWS_ROLE_ARN: OTHER_ROLE, ASSUME_ROLE_ARN: ROLE };
  expect(readConfig(both)).toMatchObject({ assumeRole: { arn: ROLE }, identity: { roleArn: ROLE } });
});

describe('the account of the identity', () => {
  const WEB = {
    AWS_ROLE_ARN: 'arn:aws:iam::210987654321:role/path/to/webhook',
    AWS_WEB_IDENTITY_TOKEN_FILE: '/aws/token',
  };
  const ASSUMED = { ASSUME_ROLE_ARN: ROLE };

  test.each<{ what: string; env: Record<string, string>; account: string | undefined }>([
    { what: 'no role is set', env: {}, account: undefined },
    { what: 'the web identity has a role', env: WEB, account: '210987654321' },
    {
      what: 'a role is assumed with static keys',
      env: { ...ASSUMED, AWS_ACCESS_KEY_ID: 'a' },
      account: '123456789012',
    },
    { what: 'a role is assumed with a web identity', env: { ...WEB, ...ASSUMED }, account: '123456789012' },
    // Then the AWS SDK ignores the role.
    { what: 'keys take precedence', env: { ...WEB, AWS_ACCESS_KEY_ID: 'a' }, account: undefined },
    { what: 'a profile takes precedence', env: { ...WEB, AWS_PROFILE: 'a' }, account: undefined },
    { what: 'the role has no token', env: { AWS_ROLE_ARN: WEB.AWS_ROLE_ARN }, account: undefined },
    { what: 'the role is no ARN', env: { ...WEB, AWS_ROLE_ARN: 'webhook' }, account: undefined },
  ])('is $account: $what', ({ env, account }) => {
    expect(readConfig({ ...MINIMAL, ...env }).identity.account).toBe(account);
  });
});

/** What TLS_SECRET needs. */
const WITH_TLS_SECRET = {
  SERVER_NAME: 'a.b.svc',
  WEBHOOK_CONFIGURATION: 'a',
  KUBERNETES_SERVICE_HOST: '10.0.0.1',
  KUBERNETES_SERVICE_PORT: '443',
};

const BAD: Record<string, (string | undefined)[]> = {
  HOST: [''],
  PORT: ['', '0', '-1', '65536', '8443.5', 'https', 'NaN', 'Infinity'],
  CERT_FILE: [''],
  KEY_FILE: [''],
  TIMEOUT_SECONDS: ['', '2', '31', '9.5', '10s'],
  DRAIN_SECONDS: ['-1', '61', 'soon'],
  LOG_LEVEL: ['', 'INFO', 'trace', 'verbose'],
  REFRESHER_USERNAME: [''],
  PROVISION_SECRET: [''],
  POLICY_FILE: [''],
  METRICS_PORT: ['', '0', '65536', 'http'],
  ASSUME_ROLE_ARN: ['', 'pull', 'arn:aws:iam::123456789012:user/pull', 'arn:aws:iam::1234:role/pull'],
  ASSUME_ROLE_EXTERNAL_ID: ['', 'x', 'with space'],
  SERVER_NAME: [''],
  TLS_SECRET: ['', 'tls', 'a/b/c', 'A/b'],
  WEBHOOK_CONFIGURATION: [''],
  CLIENT_CA_FILE: [''],
  CLIENT_NAMES: ['', 'a,,b'],
  CALLER_PROOF_SECRET: ['', 'proof', 'a/b/c'],
  CALLER_PROOF_DIR: [''],
  SERVICE_ACCOUNT_DIR: [''],
  AWS_REGION: [
    undefined,
    '',
    'eu-central',
    'EU-CENTRAL-1',
    'eu-central-1a',
    ' eu-central-1',
    'frankfurt',
    'a.example/',
  ],
};
const GOOD: Record<string, string[]> = {
  PORT: ['1', '65535'],
  METRICS_PORT: ['1', '65535'],
  ASSUME_ROLE_ARN: [ROLE, 'arn:aws-cn:iam::123456789012:role/path/to/pull'],
  ASSUME_ROLE_EXTERNAL_ID: ['id', 'a+b=c,d.e@f:g/h-i_j'],
  TIMEOUT_SECONDS: ['3', '30'],
  DRAIN_SECONDS: ['0', '60'],
  LOG_LEVEL: ['debug', 'info', 'warn', 'error'],
  AWS_REGION: [
    'us-gov-west-1',
    'cn-northwest-1',
    'ap-southeast-5',
    'eusc-de-east-1',
    'us-iso-east-1',
    'il-central-1',
  ],
};

test.each(Object.entries(BAD).flatMap(([name, values]) => values.map((value) => [name, value] as const)))(
  'names the variable: %s=%j',
  (name, value) => {
    const others = Object.keys(BAD).filter((other) => other !== name);
    try {
      readConfig({ ...MINIMAL, ...WITH_TLS_SECRET, CLIENT_NAMES: 'kube-apiserver', [name]: value });
      expect.unreachable();
    } catch (error) {
      const { message } = error as Error;
      expect(message).toMatch(/^The webhook cannot start with these settings: /);
      expect(message).toContain(`${name} `);
      for (const other of others) expect(message).not.toMatch(new RegExp(`\\b${other} `));
    }
  },
);

test.each(Object.entries(GOOD).flatMap(([name, values]) => values.map((value) => [name, value] as const)))(
  'accepts %s=%s',
  (name, value) => {
    expect(() => readConfig({ ...MINIMAL, [name]: value })).not.toThrow();
  },
);

test('names all invalid variables together', () => {
  const env = Object.fromEntries(Object.entries(BAD).map(([name, values]) => [name, values.at(-1)]));
  try {
    readConfig(env);
    expect.unreachable();
  } catch (error) {
    const { message } = error as Error;
    for (const name of Object.keys(BAD)) expect(message).toContain(`${name} `);
    const unchecked = Object.values(ENVIRONMENT).filter((name) => !(name in BAD));
    expect(unchecked).toEqual([
      ENVIRONMENT.webIdentityRole,
      ENVIRONMENT.webIdentityTokenFile,
      ENVIRONMENT.accessKeyId,
      ENVIRONMENT.profile,
      ENVIRONMENT.kubernetesHost,
      ENVIRONMENT.kubernetesPort,
    ]);
  }
});

test('TLS_SECRET needs a server name, a webhook configuration, and an API server', () => {
  for (const name of Object.keys(WITH_TLS_SECRET)) {
    const env = { ...MINIMAL, ...WITH_TLS_SECRET, TLS_SECRET: 'a/b', [name]: undefined };
    expect(() => readConfig(env)).toThrow(
      `The webhook cannot start with these settings: ${name} is missing: it is required with TLS_SECRET`,
    );
  }
  expect(readConfig(MINIMAL).ownTls).toBeUndefined();
});

test('names an example value for a missing region', () => {
  expect(() => readConfig({})).toThrow(
    'AWS_REGION is missing: set it to the region of the registry, such as eu-central-1',
  );
});
