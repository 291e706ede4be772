// Addresses of this machine and its network's own services, which no registered cluster may have: behind them are the
// Lambda runtime, instance and container credentials. Names are judged by what they resolve to, at each connection.
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
  // AWS' own services by IPv6 (EC2 User Guide, instance metadata; EKS User Guide, Pod Identity).
  ['fd00:ec2::', 32],
] as const)
  LOCAL.addSubnet(network, prefix, 'ipv6');

/** Whether an address is one of this machine's or its link's. */
export function isLocal(address: string): boolean {
  const family = isIP(address);
  return family !== 0 && LOCAL.check(address, family === 4 ? 'ipv4' : 'ipv6');
}

/** Why a URL's host cannot be a cluster's, as far as it says so itself; undefined where it may be. */
export function localAddressProblem(url: string): string | undefined {
  const host = new URL(url).hostname.replace(/^\[|\]$/g, '');
  return isLocal(host) ? `${host} is an address of this machine or its link` : undefined;
}

type Callback = (
  error: NodeJS.ErrnoException | null,
  address: string | LookupAddress[],
  family?: number,
) => void;

/** Resolves a name as `dns.lookup` does, and fails where any of its addresses is local. */
export function lookupNonLocal(name: string, options: LookupOptions, callback: Callback): void {
  lookup(name, { ...options, all: true }, (error, addresses) => {
    if (error) return callback(error, []);
    const local = addresses.find(({ address }) => isLocal(address));
    if (local)
      return callback(new Error(`${name} is ${local.address}, an address of this machine or its link`), []);
    const [first] = addresses;
    if (options.all || !first) return callback(null, addresses);
    callback(null, first.address, first.family);
  });
}
