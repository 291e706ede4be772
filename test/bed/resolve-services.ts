// Preloaded into a process (node --import) in place of cluster DNS: resolves Service names to the addresses in the JSON
// of the environment variable SERVICES.
import dns from 'node:dns';

const services = JSON.parse(process.env.SERVICES ?? '{}') as Record<string, string>;
const { lookup } = dns;
dns.lookup = ((name: string, ...rest: unknown[]) =>
  (lookup as (...args: unknown[]) => void)(services[name] ?? name, ...rest)) as typeof dns.lookup;
