// The proxy that the environment names for an API server, by the rules of kubectl (Go, golang.org/x/net/http/httpproxy).
// The SDK of AWS and undici have other rules: for networks in NO_PROXY, and for loopback addresses.

import { BlockList, isIP } from 'node:net';

/**
 * The proxy for a server, from HTTPS_PROXY or HTTP_PROXY, and NO_PROXY; lower case is read as well.
 *
 * @returns undefined if the environment names none, or excludes the server
 */
export function environmentProxy(server: string): string | undefined {
  const { protocol, hostname, port } = new URL(server);
  const scheme = protocol.slice(0, -1);
  const proxy = variable(`${scheme}_proxy`);
  const host = hostname.replace(/^\[|\]$/g, '');
  const isExcluded = variable('no_proxy')
    .split(',')
    .some((pattern) =>
      excludes(pattern.trim().toLowerCase(), host, port || (scheme === 'https' ? '443' : '80')),
    );
  if (!proxy || isExcluded || isLoopback(host)) return undefined;
  return /^[a-z][a-z\d+.-]*:\/\/[^/]/i.test(proxy) ? proxy : `http://${proxy}`;
}

function variable(name: string): string {
  return process.env[name.toUpperCase()] || process.env[name] || '';
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

/** Whether an entry of NO_PROXY excludes a host: `*`, an address, a network, or a domain, which has its subdomains. */
function excludes(pattern: string, host: string, port: string): boolean {
  if (pattern === '*') return true;
  const [network = '', bits] = pattern.split('/');
  if (bits !== undefined && isIP(network)) return isInNetwork(host, network, Number(bits));
  const [, bracketed, plain, ofPort] =
    /^(?:\[(.*)\]|(.*?))(?::(\d+))?$/.exec(isIP(pattern) ? '' : pattern) ?? [];
  const name = isIP(pattern) ? pattern : (bracketed ?? plain ?? '');
  if (!name || (ofPort !== undefined && ofPort !== port)) return false;
  if (isIP(name) || isIP(host))
    return isIP(name) !== 0 && isInNetwork(host, name, isIP(name) === 4 ? 32 : 128);
  const domain = name.replace(/^\*\./, '.');
  return domain.startsWith('.') ? host.endsWith(domain) : host === domain || host.endsWith(`.${domain}`);
}

function isInNetwork(host: string, network: string, bits: number): boolean {
  const family = (address: string) => (isIP(address) === 6 ? 'ipv6' : 'ipv4');
  const list = new BlockList();
  try {
    list.addSubnet(network, bits, family(network));
  } catch {
    return false;
  }
  return isIP(host) !== 0 && list.check(host, family(host));
}
