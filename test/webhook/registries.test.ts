// Which hosts are private ECR registries, and of which region: in every partition and under every name that AWS gives
// them, and none that only looks like one.
import { expect, test } from 'vitest';
import { isHostOf, regionOfEcrHost } from '../../webhook/registries.ts';

const ID = '123456789012';

test.each([
  [`${ID}.dkr.ecr.eu-central-1.amazonaws.com`, 'eu-central-1'],
  [`${ID}.dkr.ecr.ap-southeast-5.amazonaws.com`, 'ap-southeast-5'],
  [`${ID}.dkr.ecr-fips.us-east-1.amazonaws.com`, 'us-east-1'],
  [`${ID}.dkr.ecr.us-gov-west-1.amazonaws.com`, 'us-gov-west-1'],
  [`${ID}.dkr.ecr-fips.us-gov-west-1.amazonaws.com`, 'us-gov-west-1'],
  [`${ID}.dkr.ecr.cn-north-1.amazonaws.com.cn`, 'cn-north-1'],
  [`${ID}.dkr.ecr.eusc-de-east-1.amazonaws.eu`, 'eusc-de-east-1'],
  [`${ID}.dkr-ecr.eu-west-1.on.aws`, 'eu-west-1'],
  [`${ID}.dkr-ecr-fips.us-east-1.on.aws`, 'us-east-1'],
  [`${ID}.dkr-ecr.cn-northwest-1.on.amazonwebservices.com.cn`, 'cn-northwest-1'],
])('%s is in %s', (host, region) => {
  expect(regionOfEcrHost(host)).toBe(region);
  expect(isHostOf({ region }, host)).toBe(true);
  expect(isHostOf({ region: 'eu-north-1' }, host)).toBe(false);
});

test.each([
  '',
  'public.ecr.aws',
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
])('%j is no private ECR host', (host) => {
  expect(regionOfEcrHost(host)).toBeUndefined();
  expect(isHostOf({ region: 'eu-central-1' }, host)).toBe(false);
});

test('where the host is known, it is that one and no other of its region', () => {
  const host = `${ID}.dkr.ecr.eu-central-1.amazonaws.com`;
  expect(isHostOf({ region: 'eu-central-1', host }, host)).toBe(true);
  expect(isHostOf({ region: 'eu-central-1', host }, host.replace('1', '2'))).toBe(false);
  expect(isHostOf({ region: 'eu-central-1', host: 'localhost:5000' }, 'localhost:5000')).toBe(true);
  expect(isHostOf({ region: 'eu-central-1', host: undefined }, host)).toBe(true);
});
