// Tests connections to hosts with several addresses. A server that accepts no connection, because its queue is full, stands
// for an address that is far away or does not respond.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type AddressInfo, createServer, type LookupFunction } from 'node:net';
import { createInterface } from 'node:readline';
import { afterEach, describe, expect, test } from 'vitest';
import { connectToAny } from '../../../lib/kubernetes/connect.ts';
import { Transport, TransportError } from '../../../lib/kubernetes/transport.ts';
import { endWithThisProcess } from '../../bed/process.ts';
import { tools } from '../../bed/toolchain.ts';

/** Fills its own queue, prints its port, and serves once it reads a line. The kernel drops connections to a full queue. */
const SILENT = `
import socket, sys
host, port = sys.argv[1], int(sys.argv[2])
server = socket.socket()
server.bind((host, port))
server.listen(0)
fillers = [socket.socket() for _ in range(4)]
for filler in fillers:
    filler.setblocking(False)
    filler.connect_ex(server.getsockname())
print(server.getsockname()[1], flush=True)
sys.stdin.readline()
for filler in fillers:
    filler.close()
while True:
    connection, _ = server.accept()
    if connection.recv(65536):
        connection.sendall(b'HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\n{}')
`;

const UNREACHABLE = '224.0.0.1';

let stack = new AsyncDisposableStack();
afterEach(async () => {
  await stack.disposeAsync();
  stack = new AsyncDisposableStack();
});

/** Starts a silent server. @param port 0 for a free one */
async function startSilent(host: string, port = 0): Promise<{ port: number; serve(): void }> {
  const child: ChildProcess = endWithThisProcess(
    spawn(tools().python, ['-c', SILENT, host, String(port)], {
      stdio: ['pipe', 'pipe', 'inherit'],
      detached: true,
    }),
  );
  stack.defer(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  });
  if (!child.stdout) throw new Error('the silent server has no output');
  const [line] = await once(createInterface(child.stdout), 'line');
  return { port: Number(line), serve: () => void child.stdin?.write('\n') };
}

async function startListening(host: string, port = 0): Promise<number> {
  const server = createServer((socket) => void socket.on('error', () => {}));
  server.listen(port, host);
  await once(server, 'listening');
  stack.defer(() => void server.close());
  return (server.address() as AddressInfo).port;
}

const resolvingTo =
  (...addresses: string[]): LookupFunction =>
  (_, options, callback) => {
    expect(options.all).toBe(true);
    callback(
      null,
      addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 })),
    );
  };

const connectTo = (port: number, ...addresses: string[]) =>
  connectToAny('far.example', port, resolvingTo(...addresses), AbortSignal.timeout(15_000)).then((socket) => {
    stack.defer(() => void socket.destroy());
    return socket.remoteAddress;
  });

/** Counts the connections whose first packet has no answer yet (state 02 in proc(5), /proc/net/tcp). */
function attempts(address: string, port: number): number {
  const hex = (number: number, digits: number) => number.toString(16).toUpperCase().padStart(digits, '0');
  const bytes = address.split('.').reverse();
  const remote = `${bytes.map((byte) => hex(Number(byte), 2)).join('')}:${hex(port, 4)}`;
  return readFileSync('/proc/net/tcp', 'utf8').split(` ${remote} 02 `).length - 1;
}

/** Two addresses that do not respond, the second of which waits for an attempt. */
async function startTwoSilent() {
  const first = await startSilent('127.0.0.2');
  await startSilent('127.0.0.3', first.port);
  const before = attempts('127.0.0.3', first.port);
  const untilSecondIsTried = () =>
    expect
      .poll(() => attempts('127.0.0.3', first.port), { timeout: 10_000, interval: 20 })
      .toBeGreaterThan(before);
  return { ...first, untilSecondIsTried };
}

describe('a host with several addresses', () => {
  test('is reached at an address that needs longer than the delay before the next attempt', async () => {
    const slow = await startTwoSilent();
    const connected = connectTo(slow.port, '127.0.0.2', '127.0.0.3');
    await slow.untilSecondIsTried();
    slow.serve();
    expect(await connected).toBe('127.0.0.2');
  });

  test('is reached at its last address while the others do not respond', async () => {
    const { port } = await startSilent('127.0.0.2');
    for (const host of ['127.0.0.3', '127.0.0.4', '127.0.0.5']) await startSilent(host, port);
    await startListening('127.0.0.6', port);
    const addresses = ['127.0.0.2', '127.0.0.3', '127.0.0.4', '127.0.0.5', '127.0.0.6'];
    expect(await connectTo(port, ...addresses)).toBe('127.0.0.6');
  });

  test('is reached at its second address at once if the first one refuses', async () => {
    const port = await startListening('127.0.0.3');
    expect(await connectTo(port, '127.0.0.2', '127.0.0.3')).toBe('127.0.0.3');
  });
});

describe('the transport', () => {
  const transportTo = (port: number, connectMs: number, ...addresses: string[]) =>
    stack.use(
      new Transport(
        { server: `http://far.example:${port}`, lookup: resolvingTo(...addresses) },
        { connectMs, idleMs: 10_000, maxBytes: 1_000 },
      ),
    );
  const request = () =>
    ({ method: 'GET', path: '/', headers: {}, signal: AbortSignal.timeout(20_000) }) as const;
  const failure = (transport: Transport) =>
    transport.send(request()).catch((error: unknown) => {
      if (error instanceof TransportError) return error;
      throw error;
    });

  test('sends a request to the address that responds late', async () => {
    const slow = await startTwoSilent();
    const sent = transportTo(slow.port, 10_000, '127.0.0.2', '127.0.0.3').send(request());
    await slow.untilSecondIsTried();
    slow.serve();
    expect(await sent).toMatchObject({ status: 200, text: '{}' });
  });

  test('gives up after the time limit, whatever the number of addresses, and names it', async () => {
    const { port } = await startTwoSilent();
    expect(await failure(transportTo(port, 600, '127.0.0.2', '127.0.0.3'))).toMatchObject({
      code: 'timeout',
      message: 'no connection within 0.6 s',
    });
  });

  test('reports the refusal of one address, not that the other has no route', async () => {
    const port = await startListening('127.0.0.9');
    expect(await failure(transportTo(port, 10_000, UNREACHABLE, '127.0.0.2'))).toMatchObject({
      code: 'refused',
    });
    expect(await failure(transportTo(port, 10_000, UNREACHABLE))).toMatchObject({ code: 'unreachable' });
  });
});
