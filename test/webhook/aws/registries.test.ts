// Which hosts are private ECR registries, and of which region: in every partition and under every name that AWS gives
// them, and none that only looks like one.
import { ECRClient } from '@aws-sdk/client-ecr';
import { ECRPUBLICClient } from '@aws-sdk/client-ecr-public';
import { describe, expect, test } from 'vitest';
import {
  isHostOf,
  mayBeHostOf,
  parseEcrHost,
  partitionOfRegion,
  privateHost,
  type Registry,
} from '../../../webhook/aws/registries.ts';

const ID = '123456789012';
const inRegion = (region: string, host?: string): Registry => ({ source: { service: 'ecr', region }, host });

interface Form {
  host: string;
  region: string;
  partition: string;
  fips?: boolean;
  dualStack?: boolean;
  service?: 'ecr' | 'ecr-public';
  /** Where the SDK goes for its token. */
  api: string;
}
const DUAL = { dualStack: true };
const FIPS = { fips: true };
const PUBLIC = { service: 'ecr-public', region: 'us-east-1', partition: 'aws' } as const;

const FORMS: Form[] = [
  {
    host: `${ID}.dkr.ecr.eu-central-1.amazonaws.com`,
    region: 'eu-central-1',
    partition: 'aws',
    api: 'api.ecr.eu-central-1.amazonaws.com',
  },
  {
    host: `${ID}.dkr.ecr.ap-southeast-5.amazonaws.com`,
    region: 'ap-southeast-5',
    partition: 'aws',
    api: 'api.ecr.ap-southeast-5.amazonaws.com',
  },
  {
    host: `${ID}.dkr.ecr-fips.us-east-1.amazonaws.com`,
    region: 'us-east-1',
    partition: 'aws',
    ...FIPS,
    api: 'api.ecr-fips.us-east-1.amazonaws.com',
  },
  {
    host: `${ID}.dkr-ecr.eu-west-1.on.aws`,
    region: 'eu-west-1',
    partition: 'aws',
    ...DUAL,
    api: 'ecr.eu-west-1.api.aws',
  },
  {
    host: `${ID}.dkr-ecr-fips.us-east-1.on.aws`,
    region: 'us-east-1',
    partition: 'aws',
    ...FIPS,
    ...DUAL,
    api: 'ecr-fips.us-east-1.api.aws',
  },
  {
    host: `${ID}.dkr.ecr.us-gov-west-1.amazonaws.com`,
    region: 'us-gov-west-1',
    partition: 'aws-us-gov',
    api: 'api.ecr.us-gov-west-1.amazonaws.com',
  },
  {
    host: `${ID}.dkr.ecr-fips.us-gov-west-1.amazonaws.com`,
    region: 'us-gov-west-1',
    partition: 'aws-us-gov',
    ...FIPS,
    api: 'api.ecr-fips.us-gov-west-1.amazonaws.com',
  },
  {
    host: `${ID}.dkr-ecr.us-gov-east-1.on.aws`,
    region: 'us-gov-east-1',
    partition: 'aws-us-gov',
    ...DUAL,
    api: 'ecr.us-gov-east-1.api.aws',
  },
  {
    host: `${ID}.dkr.ecr.cn-north-1.amazonaws.com.cn`,
    region: 'cn-north-1',
    partition: 'aws-cn',
    api: 'api.ecr.cn-north-1.amazonaws.com.cn',
  },
  {
    host: `${ID}.dkr-ecr.cn-northwest-1.on.amazonwebservices.com.cn`,
    region: 'cn-northwest-1',
    partition: 'aws-cn',
    ...DUAL,
    api: 'ecr.cn-northwest-1.api.amazonwebservices.com.cn',
  },
  {
    host: `${ID}.dkr.ecr.eusc-de-east-1.amazonaws.eu`,
    region: 'eusc-de-east-1',
    partition: 'aws-eusc',
    api: 'api.ecr.eusc-de-east-1.amazonaws.eu',
  },
  {
    host: `${ID}.dkr-ecr.eusc-de-east-1.on.amazonwebservices.eu`,
    region: 'eusc-de-east-1',
    partition: 'aws-eusc',
    ...DUAL,
    api: 'ecr.eusc-de-east-1.api.amazonwebservices.eu',
  },
  {
    host: `${ID}.dkr.ecr.us-iso-east-1.c2s.ic.gov`,
    region: 'us-iso-east-1',
    partition: 'aws-iso',
    api: 'api.ecr.us-iso-east-1.c2s.ic.gov',
  },
  {
    host: `${ID}.dkr.ecr.us-isob-east-1.sc2s.sgov.gov`,
    region: 'us-isob-east-1',
    partition: 'aws-iso-b',
    api: 'api.ecr.us-isob-east-1.sc2s.sgov.gov',
  },
  {
    host: `${ID}.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk`,
    region: 'eu-isoe-west-1',
    partition: 'aws-iso-e',
    api: 'api.ecr.eu-isoe-west-1.cloud.adc-e.uk',
  },
  {
    host: `${ID}.dkr.ecr.us-isof-south-1.csp.hci.ic.gov`,
    region: 'us-isof-south-1',
    partition: 'aws-iso-f',
    api: 'api.ecr.us-isof-south-1.csp.hci.ic.gov',
  },
  { host: 'public.ecr.aws', ...PUBLIC, api: 'api.ecr-public.us-east-1.amazonaws.com' },
  { host: 'ecr-public.aws.com', ...PUBLIC, ...DUAL, api: 'ecr-public.us-east-1.api.aws' },
];

describe.each(FORMS)('$host', ({ host, api, service = 'ecr', fips = false, dualStack = false, ...place }) => {
  test('is parsed', () => {
    expect(parseEcrHost(host)).toEqual({ service, fips, dualStack, ...place });
    expect(partitionOfRegion(place.region)).toBe(place.partition);
    expect(mayBeHostOf({ source: { service, region: place.region } }, host)).toBe(true);
    expect(mayBeHostOf({ source: { service, region: 'eu-north-1' } }, host)).toBe(false);
    expect(isHostOf({ source: { service, region: place.region } }, host)).toBe(false);
    if (service === 'ecr' && !fips && !dualStack) expect(privateHost(ID, place.region)).toBe(host);
  });

  test('gets its token from the right endpoint', () => {
    const client = service === 'ecr' ? new ECRClient({}) : new ECRPUBLICClient({});
    const parameters = { Region: place.region, UseFIPS: fips, UseDualStack: dualStack };
    expect(client.config.endpointProvider(parameters).url.host).toBe(api);
  });
});

test.each([
  '',
  'registry.example.com',
  'dkr.ecr.eu-central-1.amazonaws.com',
  `${ID}1.dkr.ecr.eu-central-1.amazonaws.com`,
  '12345678901.dkr.ecr.eu-central-1.amazonaws.com',
  'abcdefghijkl.dkr.ecr.eu-central-1.amazonaws.com',
  '*.dkr.ecr.eu-central-1.amazonaws.com',
  `https://${ID}.dkr.ecr.eu-central-1.amazonaws.com`,
  `${ID}.dkr.ecr.eu-central-1.amazonaws.com/team`,
  `${ID}.dkr.ecr.eu-central-1.amazonaws.com:443`,
  `${ID}.dkr.ecr.eu-central-1.amazonaws.com.example.com`,
  `${ID}.dkr.ecr.eu-central-1.amazonaws.com.cn.example.com`,
  `${ID}.dkr.ecr.eu-central-1.amazonaws-com`,
  `${ID}.dkr.ecr.eu-central-1.example.amazonaws.com`,
  `x.${ID}.dkr.ecr.eu-central-1.amazonaws.com`,
  `${ID}.dkr.ecr..amazonaws.com`,
  `${ID}.dkr.ecr.eu-central-1.amazonaws.com\n`,
  `${ID}.dkr.ecr.eu-central-1.amazonaws.com.cn`,
  `${ID}.dkr.ecr.cn-north-1.amazonaws.com`,
  `${ID}.dkr.ecr.eusc-de-east-1.amazonaws.com`,
  `${ID}.dkr.ecr.us-iso-east-1.sc2s.sgov.gov`,
  `${ID}.dkr-ecr.eu-central-1.amazonaws.com`,
  `${ID}.dkr.ecr.eu-central-1.on.aws`,
  `${ID}.dkr-ecr.us-iso-east-1.on.aws`,
  'xpublic.ecr.aws',
  'public.ecr.aws.example.com',
])('%j is no private ECR host', (host) => {
  expect(parseEcrHost(host)).toBeUndefined();
  expect(mayBeHostOf(inRegion('eu-central-1'), host)).toBe(false);
});

test('a registry with a known host has no other host of its region, and one without has none at all', () => {
  const host = `${ID}.dkr.ecr.eu-central-1.amazonaws.com`;
  expect(isHostOf({ source: { service: 'ecr', region: 'eu-central-1' }, host }, host)).toBe(true);
  expect(isHostOf({ source: { service: 'ecr', region: 'eu-central-1' }, host }, host.replace('1', '2'))).toBe(
    false,
  );
  expect(isHostOf(inRegion('eu-central-1', 'localhost:5000'), 'localhost:5000')).toBe(true);
  expect(mayBeHostOf(inRegion('eu-central-1', 'localhost:5000'), host)).toBe(false);
  expect(isHostOf(inRegion('eu-central-1', undefined), host)).toBe(false);
});
