// What the refresher asks STS for, against what its role's policy says of it: the conditions of the template, evaluated
// as IAM documents it (IAM User Guide, "Multivalued context keys" and "Condition operators"). No AWS takes part.
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { audienceOf } from '../../contract/keyless.ts';
import { keylessTokens } from '../../functions/refresher/keyless.ts';
import { type AwsEndpoint, startAwsEndpoint } from '../bed/aws-endpoint.ts';
import { resources, synth } from './synth.ts';

const STAGE = 'Stage-1';

/** By condition keys; a key that a request does not have is absent, or has no values. */
type Request = Readonly<Record<string, readonly string[]>>;
type Conditions = Readonly<Record<string, Readonly<Record<string, string | number>>>>;

/** `*` is any text, `?` any character. */
function isLike(value: string, pattern: string): boolean {
  const escaped = pattern.replace(/[.+^${}()|[\]\\]/g, '\\$&');
  return new RegExp(`^${escaped.replaceAll('*', '.*').replaceAll('?', '.')}$`, 's').test(value);
}

const OPERATORS: Readonly<Record<string, (values: readonly string[], expected: string) => boolean>> = {
  // True where there is none.
  'ForAllValues:StringLike': (values, pattern) => values.every((value) => isLike(value, pattern)),
  Null: (values, expected) => String(values.length === 0) === expected,
  NumericEquals: (values, expected) => values.length === 1 && Number(values[0]) === Number(expected),
  StringEquals: (values, expected) => values.length === 1 && values[0] === expected,
};

function isAllowed(conditions: Conditions, request: Request): boolean {
  return Object.entries(conditions).every(([name, keys]) => {
    const operator = OPERATORS[name];
    if (!operator) throw new Error(`this test does not know the operator ${name}`);
    return Object.entries(keys).every(([key, expected]) => operator(request[key] ?? [], String(expected)));
  });
}

/** Of the one statement that lets the role ask for tokens. */
function conditionsOf(stackName: string): Conditions {
  const { Properties } = resources(synth({ keyless: true, stackName }), 'AWS::IAM::Role')
    .RefresherFunctionRole as unknown as {
    Properties: {
      Policies: { PolicyDocument: { Statement: { Action: unknown; Condition?: Conditions }[] } }[];
    };
  };
  const statements = Properties.Policies.flatMap(({ PolicyDocument }) => PolicyDocument.Statement);
  const [statement, another] = statements.filter(({ Action }) =>
    [Action].flat().includes('sts:GetWebIdentityToken'),
  );
  if (!statement?.Condition || another) throw new Error('not one statement with conditions');
  return statement.Condition;
}

describe('the role may', () => {
  const conditions = conditionsOf(STAGE);
  let aws: AwsEndpoint;
  let asked: Request;
  beforeAll(async () => {
    aws = await startAwsEndpoint();
    aws.settings.issuer = { sign: () => 'a token' };
    const env = { ...aws.env, AWS_ACCESS_KEY_ID: 'AKIAEXAMPLE', AWS_SECRET_ACCESS_KEY: 'secret' };
    for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value);
    const keyless = keylessTokens({ region: 'eu-central-1', stage: STAGE });
    await keyless.token({ cluster: 'team/a' }, 'team/a', AbortSignal.timeout(10_000));
    asked = aws.stsCalls.at(-1)?.asked ?? {};
  });
  afterAll(async () => {
    vi.unstubAllEnvs();
    await aws[Symbol.asyncDispose]();
  });

  test('have what the refresher asks for: one audience, one lifetime', () => {
    expect(asked).toEqual({
      'sts:IdentityTokenAudience': [audienceOf(STAGE, 'team/a')],
      'sts:DurationSeconds': ['900'],
      'sts:SigningAlgorithm': ['ES384'],
    });
    expect(isAllowed(conditions, asked)).toBe(true);
  });

  const own = audienceOf(STAGE, 'a');
  test.each<{ title: string; but: Request }>([
    { title: 'another audience', but: { 'sts:IdentityTokenAudience': ['sts.amazonaws.com'] } },
    {
      title: 'an audience of another stage',
      but: { 'sts:IdentityTokenAudience': [audienceOf('Other', 'a')] },
    },
    {
      title: 'a stage whose name begins alike',
      but: { 'sts:IdentityTokenAudience': [audienceOf(`${STAGE}0`, 'a')] },
    },
    { title: 'a foreign audience beside its own', but: { 'sts:IdentityTokenAudience': [own, 'vault'] } },
    { title: 'no audience', but: { 'sts:IdentityTokenAudience': [] } },
    { title: 'a longer life', but: { 'sts:DurationSeconds': ['3600'] } },
    { title: 'a life that STS chooses', but: { 'sts:DurationSeconds': [] } },
    { title: 'another algorithm', but: { 'sts:SigningAlgorithm': ['RS256'] } },
  ])('not have $title', ({ but }) => {
    expect(isAllowed(conditions, { ...asked, ...but })).toBe(false);
  });
});
