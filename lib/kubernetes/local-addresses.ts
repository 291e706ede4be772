// Refuses addresses of this machine and of link-local AWS services as addresses of a registered cluster: the Lambda
// runtime, instance credentials and container credentials are behind them. A name is resolved at each connection.
import { type LookupAddress, type LookupOptions, lookup } from 'node:dns';
import { BlockList, isIP } from 'node:net';

const LOCAL = new BlockList();
for (const [network, prefix] of [
  ['0.0.0.0', 8],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
] as const)
  LOCAL.addSubnet(network, prefix, 'ipv4');
for (const [network, prefix] of [
  ['::', 127],
  ['fe80::', 10],
  // AWS services in IPv6 (EC2 User Guide, instance metadata; EKS User Guide, Pod Identity).
  ['fd00:ec2::', 32],
] as const)
  LOCAL.addSubnet(network, prefix, 'ipv6');

/** The `code` of the error with which `lookupNonLocal` fails for a local address. */
export const LOCAL_ADDRESS_CODE = 'ERR_LOCAL_ADDRESS';

/** Whether an address is loopback, unspecified or link-local. */
export function isLocal(address: string): boolean {
  const family = isIP(address);
  return family !== 0 && LOCAL.check(address, family === 4 ? 'ipv4' : 'ipv6');
}

/** Why the host of a URL cannot be a cluster's, if it is a local IP address. A name is judged when it is resolved. */
export function localAddressProblem(url: string): string | undefined {
  const host = new URL(url).hostname.replace(/^\[|\]$/g, '');
  return isLocal(host) ? `${host} is a loopback or link-local address` : undefined;
}

type Callback = (
  error: NodeJS.ErrnoException | null,
  address: string | LookupAddress[],
  family?: number,
) => void;

/** Resolves a name as `dns.lookup` does. Fails if any of its addresses is local. */
export function lookupNonLocal(name: string, options: LookupOptions, callback: Callback): void {
  lookup(name, { ...options, all: true }, (error, addresses) => {
    if (error) return callback(error, []);
    const local = addresses.find(({ address }) => isLocal(address));
    if (local) {
      const refusal = new Error(`${name} is ${local.address}, which is a loopback or link-local address`);
      return callback(Object.assign(refusal, { code: LOCAL_ADDRESS_CODE }), []);
    }
    const [first] = addresses;
    if (options.all || !first) return callback(null, addresses);
    callback(null, first.address, first.family);
  });
}
