// A stand-in for the AWS APIs that a webhook calls, over HTTP: ECR and ECR Public return a new token for each
// GetAuthorizationToken (AWS JSON 1.1), STS returns role sessions, a container credential endpoint returns the webhook's
// own credentials. It records each call with its caller, and fails on demand. Controlled from this process, or over
// HTTP: POST /_control, GET /_calls.
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { callerIdentity, type Principal } from './caller-identity.ts';
import { type Conditions, type Issuer, Refusal, readRequest } from './web-identity.ts';

export type EcrMode = 'ok' | 'throttle' | 'down' | 'hang' | 'denied';

export interface RoleSettings {
  /** The external id that AssumeRole must send. */
  externalId?: string;
  /** True: AssumeRole is denied for every caller. */
  denied?: boolean;
  /** True: AssumeRole never answers. */
  silent?: boolean;
}

export interface EcrSettings {
  mode: EcrMode;
  /** Lifetime of the tokens issued from now on, in seconds. */
  lifetimeSeconds: number;
  /** Lifetimes of the next tokens, in seconds; each is used once, in order. */
  nextLifetimesSeconds: number[];
  /** Milliseconds of delay before each answer. */
  latencyMs: number;
  /**
   * Rate and burst of tokens; calls above are throttled. The bucket does not refill before `refillsAfterCalls` calls, so
   * that a machine of any speed exceeds the burst.
   */
  limit: { perSecond: number; burst: number; refillsAfterCalls?: number } | undefined;
  /** Settings by role ARN; any caller may assume a role that is not listed. */
  roles: Record<string, RoleSettings>;
  /** Access keys that GetCallerIdentity knows. */
  principals: Record<string, Principal>;
  /** Signs web identity tokens; absent: outbound federation is disabled. */
  issuer: Pick<Issuer, 'sign'> | undefined;
  /** The conditions of the caller's policy for web identity tokens; absent: no condition. */
  webIdentityConditions: Conditions | undefined;
  /** Lifetime of a role session, in seconds. */
  sessionSeconds: number;
  /** The only web identity token that is accepted; absent: any. */
  webIdentityToken: string | undefined;
  /** The only authorization token that the container credential endpoint accepts; absent: any. */
  containerToken: string | undefined;
}

export interface EcrCall {
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly outcome: EcrMode;
  readonly service: string;
  readonly region: string;
  /** The role of the calling session; empty for an access key that this endpoint did not issue. */
  readonly role: string;
  /** The token that was issued; absent if the call failed. */
  readonly password?: string;
  readonly expiresAt?: number;
}

export interface StsCall {
  readonly at: number;
  readonly action: string;
  readonly role: string;
  readonly externalId: string | undefined;
  readonly webIdentityToken: string | undefined;
  /** The access key of the call; empty if it is unsigned. */
  readonly accessKeyId: string;
  /** The role of the calling session; empty for an unknown access key, or none. */
  readonly by: string;
  readonly region: string;
  readonly ok: boolean;
}

export interface AwsEndpoint extends AsyncDisposable {
  readonly url: string;
  /** The host of the registry that the tokens are for. */
  readonly host: string;
  readonly settings: EcrSettings;
  readonly calls: readonly EcrCall[];
  readonly stsCalls: readonly StsCall[];
  /** Environment variables that make a process's AWS SDK send every call here. */
  readonly env: Readonly<Record<string, string>>;
  stop(): Promise<void>;
}

const TWELVE_HOURS_S = 12 * 3600;

interface Session {
  readonly principal: Principal;
  readonly role: string;
  readonly expiresAt: number;
}

interface Caller {
  readonly accessKeyId: string;
  readonly session: Session | undefined;
  readonly region: string;
  readonly service: string;
}

/**
 * Starts the endpoint on a free port.
 *
 * @param options.now the endpoint's clock, in milliseconds since the epoch
 * @param options.address where it listens: Pods of a node do not reach loopback
 */
export async function startAwsEndpoint({
  account = '123456789012',
  region = 'eu-central-1',
  now = Date.now as () => number,
  address: listensAt = '127.0.0.1',
} = {}): Promise<AwsEndpoint> {
  const host = `${account}.dkr.ecr.${region}.amazonaws.com`;
  const settings: EcrSettings = {
    mode: 'ok',
    lifetimeSeconds: TWELVE_HOURS_S,
    nextLifetimesSeconds: [],
    latencyMs: 0,
    limit: undefined,
    roles: {},
    principals: {},
    issuer: undefined,
    webIdentityConditions: undefined,
    sessionSeconds: 3600,
    webIdentityToken: undefined,
    containerToken: undefined,
  };
  const calls: EcrCall[] = [];
  const stsCalls: StsCall[] = [];
  const sessions = new Map<string, Session>();
  let minted = 0;
  let available = Number.POSITIVE_INFINITY;
  let countedAt = 0;

  /** A token bucket on the real clock: the endpoint's own clock may be virtual. */
  const isThrottled = () => {
    if (!settings.limit) return false;
    const { perSecond, burst, refillsAfterCalls = 0 } = settings.limit;
    const at = performance.now();
    const refilled = calls.length < refillsAfterCalls ? 0 : ((at - countedAt) / 1000) * perSecond;
    available = Math.min(burst, available + refilled);
    countedAt = at;
    if (available < 1) return true;
    available -= 1;
    return false;
  };

  const session = (role: string, name = 'session') => {
    minted += 1;
    const accessKeyId = `ASIA${String(minted).padStart(16, '0')}`;
    const expiresAt = now() + settings.sessionSeconds * 1000;
    // Recognisable, so that a leak can be found.
    const secretAccessKey = `secret-access-key-${randomBytes(16).toString('hex')}`;
    // About as long as an STS token, with characters that URLs must escape.
    const sessionToken = `session-token-${randomBytes(20).toString('hex')}/+${randomBytes(900).toString('base64')}`;
    // As STS has them: without the role's path (IAM User Guide, "IAM identifiers").
    const [, partition = 'aws', owner = account, roleName = role] =
      /^arn:([^:]+):iam::(\d+):role\/(?:.*\/)?([^/]+)$/.exec(role) ?? [];
    const principal = {
      ...{ secretAccessKey, sessionToken, expiresAt, account: owner },
      arn: `arn:${partition}:sts::${owner}:assumed-role/${roleName}/${name}`,
      userId: `AROAEXAMPLE${roleName.toUpperCase()}:${name}`,
    };
    sessions.set(accessKeyId, { principal, role, expiresAt });
    return { accessKeyId, secretAccessKey, sessionToken, expiration: new Date(expiresAt).toISOString() };
  };

  const callerOf = (request: IncomingMessage): Caller => {
    const scope = /Credential=([^/]+)\/\d+\/([^/]+)\/([^/]+)\//.exec(request.headers.authorization ?? '');
    const [, key = '', region = '', service = ''] = scope ?? [];
    return { accessKeyId: key, session: sessions.get(key), region, service };
  };

  const token = (response: ServerResponse, caller: Caller) => {
    const at = now();
    const common = { at, service: caller.service, region: caller.region, role: caller.session?.role ?? '' };
    const mode = settings.mode === 'ok' && isThrottled() ? 'throttle' : settings.mode;
    if (caller.session && caller.session.expiresAt <= at) {
      calls.push({ ...common, outcome: 'denied' });
      const message = 'The security token included in the request is expired';
      return send(response, 400, { __type: 'ExpiredTokenException', message });
    }
    if (mode !== 'ok') calls.push({ ...common, outcome: mode });
    if (mode === 'hang') return;
    if (mode === 'throttle')
      return send(response, 400, { __type: 'ThrottlingException', message: 'Rate exceeded' });
    if (mode === 'down')
      return send(response, 500, { __type: 'ServerException', message: 'Internal failure' });
    if (mode === 'denied') {
      const message = 'User is not authorized to perform: ecr:GetAuthorizationToken';
      return send(response, 400, { __type: 'AccessDeniedException', message });
    }
    const lifetime = settings.nextLifetimesSeconds.shift() ?? settings.lifetimeSeconds;
    // As long as a real ECR token, and recognisable.
    const password = `ecr-token-${calls.length + 1}-${randomBytes(1_300).toString('base64url')}`;
    const expiresAt = at + lifetime * 1000;
    calls.push({ ...common, outcome: mode, password, expiresAt });
    const authorizationToken = Buffer.from(`AWS:${password}`).toString('base64');
    const data = { authorizationToken, expiresAt: expiresAt / 1000 };
    send(response, 200, {
      authorizationData:
        caller.service === 'ecr-public' ? data : [{ ...data, proxyEndpoint: `https://${host}` }],
    });
  };

  const sts = (response: ServerResponse, caller: Caller, form: URLSearchParams) => {
    const action = form.get('Action') ?? '';
    const role = form.get('RoleArn') ?? '';
    const externalId = form.get('ExternalId') ?? undefined;
    const { externalId: needed, denied = false, silent = false } = settings.roles[role] ?? {};
    if (silent) return;
    const refusal = (() => {
      if (caller.session && caller.session.expiresAt <= now()) return 'ExpiredToken';
      if (action === 'AssumeRoleWithWebIdentity') {
        const { webIdentityToken: newest } = settings;
        return newest === undefined || form.get('WebIdentityToken') === newest
          ? undefined
          : 'ExpiredTokenException';
      }
      return denied || (needed !== undefined && needed !== externalId) ? 'AccessDenied' : undefined;
    })();
    const by = caller.session?.role ?? '';
    const webIdentityToken = form.get('WebIdentityToken') ?? undefined;
    const { accessKeyId: key, region: asked } = caller;
    stsCalls.push({
      ...{ at: now(), action, role, externalId, webIdentityToken },
      ...{ accessKeyId: key, by, region: asked, ok: !refusal },
    });
    if (refusal) {
      const message = `${by || 'a user'} is not authorized to perform: sts:${action} on resource: ${role}`;
      return sendXml(
        response,
        403,
        `<ErrorResponse><Error><Type>Sender</Type><Code>${refusal}</Code><Message>${message}</Message></Error></ErrorResponse>`,
      );
    }
    const { accessKeyId, secretAccessKey, sessionToken, expiration } = session(
      role,
      form.get('RoleSessionName') ?? undefined,
    );
    sendXml(
      response,
      200,
      `<${action}Response><${action}Result><Credentials><AccessKeyId>${accessKeyId}</AccessKeyId><SecretAccessKey>${secretAccessKey}</SecretAccessKey><SessionToken>${sessionToken}</SessionToken><Expiration>${expiration}</Expiration></Credentials></${action}Result></${action}Response>`,
    );
  };

  /** GetWebIdentityToken: as the caller, whose `sub` is the role's ARN (IAM User Guide, outbound federation). */
  const webIdentity = (
    response: ServerResponse,
    { accessKeyId, session: known, region }: Caller,
    form: URLSearchParams,
  ) => {
    const principal = settings.principals[accessKeyId] ?? known?.principal;
    const [, partition, owner, role] =
      /^arn:([^:]+):sts::(\d+):assumed-role\/([^/]+)\//.exec(principal?.arn ?? '') ?? [];
    const asked = (() => {
      try {
        if (!settings.issuer)
          throw new Refusal('OutboundWebIdentityFederationDisabledException', 'it is not enabled');
        const request = readRequest(form, settings.webIdentityConditions);
        if (known && known.expiresAt < now() + request.seconds * 1000)
          throw new Refusal(
            'SessionDurationEscalationException',
            'no token outlives the session that asks for it',
          );
        return { issuer: settings.issuer, ...request };
      } catch (error) {
        if (error instanceof Refusal) return error;
        throw error;
      }
    })();
    const refused = asked instanceof Refusal;
    stsCalls.push({
      ...{ at: now(), action: 'GetWebIdentityToken', externalId: undefined, webIdentityToken: undefined },
      ...{ role: refused ? '' : asked.audiences.join(), accessKeyId, by: known?.role ?? '' },
      ...{ region, ok: !refused },
    });
    if (refused)
      return sendXml(
        response,
        asked.code === 'AccessDenied' ? 403 : 400,
        `<ErrorResponse><Error><Type>Sender</Type><Code>${asked.code}</Code><Message>${asked.message.replaceAll('&', '&amp;')}</Message></Error></ErrorResponse>`,
      );
    const { issuer, audiences, seconds } = asked;
    const token = issuer.sign({
      sub: `arn:${partition}:iam::${owner}:role/${role}`,
      aud: audiences.length === 1 ? (audiences[0] ?? '') : audiences,
      expiresIn: seconds,
    });
    const expiration = new Date(now() + seconds * 1000).toISOString();
    sendXml(
      response,
      200,
      `<GetWebIdentityTokenResponse><GetWebIdentityTokenResult><WebIdentityToken>${token}</WebIdentityToken><Expiration>${expiration}</Expiration></GetWebIdentityTokenResult></GetWebIdentityTokenResponse>`,
    );
  };

  const container = (response: ServerResponse, authorization: string | undefined) => {
    const { containerToken } = settings;
    if (containerToken !== undefined && authorization !== containerToken)
      return send(response, 401, { message: 'the token is not the one of the moment' });
    const { accessKeyId, secretAccessKey, sessionToken, expiration } = session('container');
    send(response, 200, {
      AccessKeyId: accessKeyId,
      SecretAccessKey: secretAccessKey,
      Token: sessionToken,
      Expiration: expiration,
    });
  };

  const server = createServer(async (request, response) => {
    const body = await read(request);
    // The SDK corrects its clock from a Date header that is far off.
    response.setHeader('date', new Date(now()).toUTCString());
    const caller = callerOf(request);
    if (request.url === '/_control') {
      Object.assign(settings, JSON.parse(body));
      send(response, 200, settings);
    } else if (request.url === '/_calls') {
      send(response, 200, calls);
    } else if (request.url === '/_credentials') {
      container(response, request.headers.authorization);
    } else if (request.headers['x-amz-target']?.toString().endsWith('.GetAuthorizationToken')) {
      setTimeout(() => token(response, caller), settings.latencyMs);
    } else if (request.method === 'GET' && request.url?.includes('Action=GetCallerIdentity')) {
      const principalOf = (key: string) => settings.principals[key] ?? sessions.get(key)?.principal;
      const { status, body: answer } = callerIdentity(request, principalOf, now());
      send(response, status, answer);
    } else if (body.includes('Action=GetWebIdentityToken')) {
      webIdentity(response, caller, new URLSearchParams(body));
    } else if (body.includes('Action=AssumeRole')) {
      sts(response, caller, new URLSearchParams(body));
    } else {
      send(response, 400, { __type: 'UnknownOperationException' });
    }
  });
  server.listen(0, listensAt);
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the AWS endpoint has no port');
  const stop = async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  const url = `http://${listensAt}:${address.port}`;
  return {
    url,
    host,
    settings,
    calls,
    stsCalls,
    env: {
      AWS_ENDPOINT_URL_ECR: url,
      AWS_ENDPOINT_URL_ECR_PUBLIC: url,
      AWS_ENDPOINT_URL_STS: url,
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/x-amz-json-1.1' }).end(JSON.stringify(body));
}

function sendXml(response: ServerResponse, status: number, body: string): void {
  response.writeHead(status, { 'content-type': 'text/xml' }).end(body);
}

async function read(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}
