// Reading and writing the docker config of a Secret, without any decision.
import { expect, test } from 'vitest';
import {
  EMPTY_CONFIG,
  fingerprint,
  formatEntry,
  hostOf,
  parseDockerConfig,
  withEntries,
} from '../../../webhook/admission/docker-config.ts';

const all = () => true;
const none = () => false;

test.each([
  { text: '{}', keys: [], hasMore: false },
  { text: '{"auths":null}', keys: [], hasMore: false },
  { text: '{"auths":{}}', keys: [], hasMore: false },
  { text: ' {\n"auths" : { "b": {}, "a": 1 } } ', keys: ['b', 'a'], hasMore: false },
  { text: '{"credsStore":"x"}', keys: [], hasMore: true },
  { text: '{"auths":{"__proto__":{}}}', keys: ['__proto__'], hasMore: false },
  { text: '{"__proto__":{"auths":{"a":1}}}', keys: [], hasMore: true },
  { text: '{"auths":{"a":1},"auths":{"b":2}}', keys: ['b'], hasMore: false },
])('$text is a docker config', ({ text, keys, hasMore }) => {
  const config = parseDockerConfig(text);
  expect([...(config?.auths.keys() ?? ['none'])]).toEqual(keys);
  expect(config).toMatchObject({ text, hasMore });
});

test.each([
  '',
  ' ',
  'FAKE',
  'null',
  'true',
  '1',
  '"{}"',
  '[]',
  '{',
  '{}}',
  "{'auths':{}}",
  '{"auths":{},}',
  '{} // comment',
  '\ufeff{}',
  '{"auths":[]}',
  '{"auths":""}',
  '{"auths":0}',
  '{"auths":false}',
])('%j is not a docker config', (text) => {
  expect(parseDockerConfig(text)).toBeUndefined();
});

test('the empty one', () => {
  expect(withEntries(EMPTY_CONFIG, all, new Map())).toBe('{"auths":{}}');
  expect(withEntries(EMPTY_CONFIG, all, new Map([['h', '{"a": 1}']]))).toBe('{"auths":{"h":{"a": 1}}}');
});

test.each([
  {
    what: 'kept as text',
    text: '{"auths":{"a": {"n":1.0}}}',
    isKept: all,
    written: '{"auths":{"a":{"n":1.0},"h":1}}',
  },
  { what: 'not kept', text: '{"auths":{"a":{"n":1.0}}}', isKept: none, written: '{"auths":{"h":1}}' },
  {
    what: 'one of two',
    text: '{"auths":{"a":0,"b":2e0}}',
    isKept: (key: string) => key === 'b',
    written: '{"auths":{"b":2e0,"h":1}}',
  },
  { what: 'auths null', text: '{"auths": null}', isKept: all, written: '{"auths":{"h":1}}' },
  { what: 'no auths', text: '{"x":[ 1 ]}', isKept: all, written: '{"x":[ 1 ],"auths":{"h":1}}' },
  { what: 'more after auths', text: '{"auths":{},"x":-0}', isKept: all, written: '{"x":-0,"auths":{"h":1}}' },
  {
    what: 'a key __proto__',
    text: '{"auths":{"__proto__":{"a":1}}}',
    isKept: all,
    written: '{"auths":{"__proto__":{"a":1},"h":1}}',
  },
  {
    what: 'the last of equal keys',
    text: '{"auths":{"a":1,"a":2.0}}',
    isKept: all,
    written: '{"auths":{"a":2.0,"h":1}}',
  },
  {
    what: 'the last of equal members',
    text: '{"auths":{"a":1},"auths":{"b":2.0}}',
    isKept: all,
    written: '{"auths":{"b":2.0,"h":1}}',
  },
  {
    what: 'a key that needs escapes',
    text: '{"auths":{"\\u0022\\n":0.0}}',
    isKept: all,
    written: '{"auths":{"\\"\\n":0.0,"h":1}}',
  },
])('withEntries: $what', ({ text, isKept, written }) => {
  const config = parseDockerConfig(text);
  if (!config) throw new Error('not a docker config');
  const result = withEntries(config, isKept, new Map([['h', '1']]));
  expect(result).toBe(written);
  // What it writes it reads, and writes again.
  const again = parseDockerConfig(result);
  expect(again && withEntries(again, (key) => key !== 'h', new Map([['h', '1']]))).toBe(written);
});

test.each([
  ['registry.example.com', 'registry.example.com'],
  ['https://registry.example.com', 'registry.example.com'],
  ['http://registry.example.com', 'registry.example.com'],
  ['HTTPS://Registry.Example.com/', 'registry.example.com'],
  ['https://index.docker.io/v1/', 'index.docker.io'],
  ['registry.example.com/v2', 'registry.example.com'],
  ['registry.example.com/v2/', 'registry.example.com'],
  ['registry.example.com:5000', 'registry.example.com:5000'],
  // Other entries than the host's:
  ['registry.example.com/team', 'registry.example.com/team'],
  ['https://registry.example.com/v2/team', 'registry.example.com/v2/team'],
  ['registry.example.com/v3/', 'registry.example.com/v3'],
  ['*.example.com', '*.example.com'],
  ['ftp://registry.example.com', 'ftp://registry.example.com'],
  ['', ''],
  ['__proto__', '__proto__'],
])('the host of %j is %j', (key, host) => {
  expect(hostOf(key)).toBe(host);
});

test('an entry has the fields that its readers read', () => {
  expect(JSON.parse(formatEntry('AWS', 'p"a:ss'))).toEqual({
    username: 'AWS',
    password: 'p"a:ss',
    auth: Buffer.from('AWS:p"a:ss').toString('base64'),
  });
});

test('a fingerprint is short, stable, and another one for anything else', () => {
  const ours = fingerprint('a=1,b=2', ['{"x":1}', '{"y":2}']);
  expect(ours).toMatch(/^[\w-]{16}$/);
  expect(fingerprint('a=1,b=2', ['{"x":1}', '{"y":2}'])).toBe(ours);
  const others = [
    fingerprint('a=1,b=3', ['{"x":1}', '{"y":2}']),
    fingerprint('a=1,b=2', ['{"y":2}', '{"x":1}']),
    fingerprint('a=1,b=2', ['{"x":1}']),
    fingerprint('a=1,b=2', ['{"x":1}{"y":2}']),
    fingerprint('a=1,b=2{"x":1}', ['{"y":2}']),
    fingerprint('', []),
  ];
  expect(new Set([ours, ...others]).size).toBe(others.length + 1);
});
