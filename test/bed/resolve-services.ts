// Loaded into a process before its program (node --import): the names of Services are their addresses, as SERVICES says
// (JSON), where there is no cluster DNS.
import dns from 'node:dns';

const services = JSON.parse(process.env.SERVICES ?? '{}') as Record<string, string>;
const { lookup } = dns;
dns.lookup = ((name: string, ...rest: unknown[]) =>
  (lookup as (...args: unknown[]) => void)(services[name] ?? name, ...rest)) as typeof dns.lookup;
