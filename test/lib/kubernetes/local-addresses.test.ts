// Tests which addresses and names the refresher refuses as local.
import { lookup } from 'node:dns';
import { expect, test } from 'vitest';
import {
  isLocal,
  LOCAL_ADDRESS_CODE,
  localAddressProblem,
  lookupNonLocal,
} from '../../../lib/kubernetes/local-addresses.ts';

test.each([
  ...[
    '127.0.0.1',
    '127.255.255.254',
    '0.0.0.0',
    '0.1.2.3',
    '169.254.169.254',
    '169.254.170.23',
    '169.254.100.1',
  ],
  ...[
    '::1',
    '::',
    'fe80::1',
    'febf::1',
    'fd00:ec2::254',
    'fd00:ec2::23',
    '::ffff:127.0.0.1',
    '::ffff:a9fe:a9fe',
  ],
])('%s is a local address', (address) => {
  expect(isLocal(address)).toBe(true);
});

test.each([
  ...[
    '10.0.0.1',
    '192.168.1.1',
    '172.16.0.1',
    '126.255.255.255',
    '128.0.0.1',
    '169.253.255.255',
    '169.255.0.0',
    '1.0.0.0',
  ],
  ...['fd00::1', 'fec0::1', '2001:db8::1', '::2', '::ffff:10.0.0.1', 'fd00:ec3::1'],
])('%s is not a local address', (address) => {
  expect(isLocal(address)).toBe(false);
});

test.each([
  'https://127.0.0.1:9001',
  'https://[::1]:6443',
  'https://2130706433',
  'https://0x7f.1',
  'https://0177.0.0.1',
  'https://[::ffff:127.0.0.1]/k8s',
  'https://169.254.169.254/latest',
  'http://169.254.170.2',
])('%s is refused before any name is resolved', (url) => {
  expect(localAddressProblem(url)).toMatch(/is a loopback or link-local address$/);
});

test.each(['https://cluster.example', 'https://10.0.0.1', 'https://127.0.0.1.example', 'https://[fd00::1]'])(
  '%s is not refused before its name is resolved',
  (url) => {
    expect(localAddressProblem(url)).toBeUndefined();
  },
);

const resolve = (name: string, options: object) =>
  new Promise((done) => lookupNonLocal(name, options, (error, ...rest) => done(error ?? rest)));

test('a name that resolves to a local address is refused with a code', async () => {
  for (const options of [{}, { all: true }, { family: 4 }])
    expect(await resolve('localhost', options)).toMatchObject({
      code: LOCAL_ADDRESS_CODE,
      message: expect.stringMatching(
        /^localhost is (127\.0\.0\.1|::1), which is a loopback or link-local address/,
      ),
    });
});

test('other names and addresses are resolved as dns.lookup resolves them', async () => {
  expect(await resolve('10.1.2.3', {})).toEqual(['10.1.2.3', 4]);
  expect(await resolve('10.1.2.3', { all: true })).toEqual([[{ address: '10.1.2.3', family: 4 }]]);
  const error = await new Promise((done) => lookup('cluster.invalid', (reason) => done(reason)));
  expect(await resolve('cluster.invalid', {})).toEqual(error);
});
