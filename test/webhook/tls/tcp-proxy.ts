// A TCP proxy between the webhook and an API server, whose connections a test breaks.
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

export interface TcpProxy extends AsyncDisposable {
  readonly port: number;
  /** Breaks all connections. */
  cut(): void;
  /** Breaks all connections, and refuses new ones until `accept`. */
  refuse(): Promise<void>;
  accept(): Promise<void>;
}

/** Starts it on a free loopback port. @param target the URL of a server on loopback */
export async function startTcpProxy(target: string): Promise<TcpProxy> {
  const onwards = Number(new URL(target).port);
  const open = new Set<Socket>();
  const server = createServer((socket) => {
    const onward = connect({ host: '127.0.0.1', port: onwards });
    for (const end of [socket, onward]) {
      open.add(end);
      end.on('error', () => {});
      end.on('close', () => {
        open.delete(end);
        socket.destroy();
        onward.destroy();
      });
    }
    socket.pipe(onward).pipe(socket);
  });
  const cut = () => {
    for (const socket of open) socket.destroy();
  };
  const listen = async (port: number) => {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
  };
  const close = async () => {
    const closed = once(server, 'close');
    server.close();
    cut();
    await closed;
  };
  await listen(0);
  const { port } = server.address() as AddressInfo;
  return {
    port,
    cut,
    refuse: close,
    accept: () => listen(port),
    async [Symbol.asyncDispose]() {
      if (server.listening) await close();
    },
  };
}
