// Opens a TCP connection to a host with any number of addresses (RFC 8305, "Happy Eyeballs", section 5). Node.js gives each
// address but the last one 250 ms: too short for a distant API server. Here an attempt goes on while the next one starts.
import { type LookupAddress, lookup as systemLookup } from 'node:dns';
import { isIP, type LookupFunction, connect as netConnect, type Socket } from 'node:net';
import { abortable } from '../abort.ts';

/** The delay before the next address is tried, while the earlier attempts go on ("Connection Attempt Delay", RFC 8305, section 8). */
const ATTEMPT_DELAY_MS = 250;

/**
 * Connects to the first address of a host that accepts a connection.
 *
 * @param host a name or an IP address, the latter without brackets
 * @param lookup resolves the name; absent: as the operating system does
 * @param signal ends all attempts
 * @throws the signal's reason; the error of the lookup; the error of the only address; AggregateError if all addresses fail
 */
export async function connectToAny(
  host: string,
  port: number,
  lookup: LookupFunction | undefined,
  signal: AbortSignal,
): Promise<Socket> {
  const addresses = alternating(await abortable(resolve(host, lookup), signal));
  const attempts: Socket[] = [];
  const { promise, resolve: succeed, reject } = Promise.withResolvers<Socket>();
  const errors: Error[] = [];
  let delay: NodeJS.Timeout | undefined;
  let isOver = false;
  const startNext = () => {
    clearTimeout(delay);
    const address = addresses[attempts.length];
    if (address === undefined || isOver) return;
    const socket = netConnect({ host: address, port, noDelay: true });
    attempts.push(socket);
    socket.once('connect', () => succeed(socket));
    socket.once('error', (error) => {
      errors.push(error);
      if (errors.length < addresses.length) startNext();
      else reject(errors.length === 1 ? error : new AggregateError(errors));
    });
    delay = setTimeout(startNext, ATTEMPT_DELAY_MS);
  };
  startNext();
  let connected: Socket | undefined;
  try {
    connected = await abortable(promise, signal);
    return connected;
  } finally {
    isOver = true;
    clearTimeout(delay);
    for (const socket of attempts) if (socket !== connected) socket.destroy();
  }
}

function resolve(host: string, lookup: LookupFunction = systemLookup): Promise<LookupAddress[]> {
  const family = isIP(host);
  if (family !== 0) return Promise.resolve([{ address: host, family }]);
  return new Promise((succeed, reject) => {
    lookup(host, { all: true }, (error, addresses) => {
      if (error) reject(error);
      else
        succeed(
          typeof addresses === 'string' ? [{ address: addresses, family: isIP(addresses) }] : addresses,
        );
    });
  });
}

/** In the order of the lookup, but no two of one family in sequence while there is another (RFC 8305, section 4). */
function alternating(addresses: readonly LookupAddress[]): string[] {
  const preferred = addresses.filter(({ family }) => family === addresses[0]?.family);
  const others = addresses.filter(({ family }) => family !== addresses[0]?.family);
  return Array.from({ length: Math.max(preferred.length, others.length) }, (_, index) => [
    preferred[index],
    others[index],
  ])
    .flat()
    .flatMap((one) => (one === undefined ? [] : [one.address]));
}
