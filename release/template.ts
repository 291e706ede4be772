// Writes the stack as a plain CloudFormation template, for those who do not use the CDK, and its function as a zip:
// `npm run template`.
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import { App } from 'aws-cdk-lib';
import { type Zippable, zipSync } from 'fflate';
import { DEFAULT_STACK_NAME } from '../contract/keyless.ts';
import { buildFunction, FUNCTION_FOLDER } from '../functions/build.ts';
import { FEATURE_FLAGS } from '../infra/feature-flags.ts';
import { MEMORY } from '../infra/limits.ts';
import { RETENTION_DAYS, readSettings } from '../infra/settings.ts';
import { EcrAnywhereStack } from '../infra/stack.ts';

type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };
type JsonObject = { readonly [key: string]: Json };

/** A parameter that may stay empty: the setting that it stands for, and a value that the template replaces by a reference. */
interface OptionalParameter {
  readonly setting: string;
  readonly placeholder: string | true;
  readonly definition: JsonObject;
}

// docs/cloudformation.md says why these. In the order of the statements that they add to the policy of the function.
const OPTIONAL: Readonly<Record<string, OptionalParameter>> = {
  AlarmEmail: {
    setting: 'alarmEmail',
    placeholder: 'placeholder@example.com',
    definition: {
      Description:
        'E-mail address for the alarms. Empty: subscribe to the topic of the output AlarmTopicArn.',
      AllowedPattern: '|[^@\\s]+@[^@\\s]+',
    },
  },
  KmsKeyArn: {
    setting: 'kmsKeyArn',
    placeholder: 'arn:aws:kms:eu-central-1:000000000000:key/00000000-0000-0000-0000-000000000000',
    definition: {
      Description: "ARN of a KMS key for everything that the stack stores. Empty: AWS' own keys.",
      AllowedPattern: '|arn:aws[a-z-]*:kms:[a-z0-9-]+:\\d{12}:key/[\\w-]+',
    },
  },
  EksRegion: {
    setting: 'eksRegions',
    placeholder: 'xx-placeholder-1',
    definition: {
      Description: 'Region whose EKS clusters may be registered without a token. Empty: none.',
      AllowedPattern: '|[a-z]{2,4}(-[a-z]+)+-\\d+',
    },
  },
  Keyless: {
    setting: 'keyless',
    placeholder: true,
    definition: {
      Description: 'Whether the refresher may have STS sign tokens for keyless clusters: empty, or true.',
      AllowedValues: ['', 'true'],
    },
  },
  PermissionsBoundary: {
    setting: 'permissionsBoundary',
    placeholder: 'arn:aws:iam::000000000000:policy/placeholder',
    definition: {
      Description: 'ARN of the IAM policy that is the permissions boundary of all roles. Empty: none.',
      AllowedPattern: '|arn:aws[a-z-]*:iam::(\\d{12}|aws):policy/[\\w+=.@/-]+',
    },
  },
};

const OTHER_NAME = 'HasOtherStackName';
const NAME_PLACEHOLDER = 'Placeholder-Stack';
const SCHEDULE_GROUP = 'AWS::Scheduler::ScheduleGroup';
const NO_VALUE = { Ref: 'AWS::NoValue' };

/** What CloudFormation puts in place of each placeholder. */
const REFERENCES: readonly (readonly [placeholder: string, name: string])[] = [
  [NAME_PLACEHOLDER, 'AWS::StackName'],
  ...Object.entries(OPTIONAL).flatMap(([name, { placeholder }]) =>
    placeholder === true ? [] : [[placeholder, name] as const],
  ),
];

type Template = {
  readonly Description: string;
  readonly Resources: Readonly<Record<string, Readonly<{ Type: string; Properties: JsonObject }>>>;
  readonly Outputs: JsonObject;
};

/** A template that another setting gives, and the condition on which it applies. */
interface Variant {
  readonly condition: string;
  readonly value: Json | undefined;
}

/** Builds the template. The bundle of the function must exist. */
async function buildTemplate(): Promise<JsonObject> {
  const variants: Variant[] = [];
  for (const [name, { setting, placeholder }] of Object.entries(OPTIONAL))
    variants.push({ condition: `Has${name}`, value: await forAnyName({ [setting]: placeholder }) });
  // The CDK's parameters and rules are left out: they need what `cdk bootstrap` creates.
  const { Resources, Outputs, Description } = combine(await forAnyName({}), variants) as JsonObject &
    Template;
  const isSet = (left: Json, right: string) => ({ 'Fn::Not': [{ 'Fn::Equals': [left, right] }] });
  return {
    AWSTemplateFormatVersion: '2010-09-09',
    Description,
    Parameters: {
      FunctionBucket: {
        Type: 'String',
        Description: 'S3 bucket, in the region of the stack, that has function.zip.',
      },
      FunctionKey: {
        Type: 'String',
        Description: 'Key of function.zip in the bucket. Each version needs another one.',
      },
      ...Object.fromEntries(
        Object.entries(OPTIONAL).map(([name, { definition }]) => [
          name,
          { Type: 'String', Default: '', ...definition },
        ]),
      ),
      LogRetentionDays: {
        ...{ Type: 'Number', Default: 30, AllowedValues: RETENTION_DAYS },
        Description: "Days for which the function's log is kept.",
      },
      MemorySize: {
        ...{ Type: 'Number', Default: MEMORY.default, MinValue: MEMORY.min, MaxValue: MEMORY.max },
        Description: 'Memory of the function in MB.',
      },
    },
    Conditions: {
      [OTHER_NAME]: isSet({ Ref: 'AWS::StackName' }, DEFAULT_STACK_NAME),
      ...Object.fromEntries(Object.keys(OPTIONAL).map((name) => [`Has${name}`, isSet({ Ref: name }, '')])),
    },
    Resources: withReferences(Resources),
    Outputs: withReferences(Outputs),
  };
}

/** The template of the stack with these settings, under any name. */
async function forAnyName(settings: Readonly<Record<string, unknown>>): Promise<Json> {
  return combine(await synth(settings), [
    { condition: OTHER_NAME, value: await synth({ ...settings, stackName: NAME_PLACEHOLDER }) },
  ]);
}

/** Synthesizes the stack with these settings. */
async function synth(settings: Readonly<Record<string, unknown>>): Promise<Json> {
  const outdir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-'));
  try {
    const app = new App({
      outdir,
      analyticsReporting: false,
      // The template contains only the hash of the code.
      context: { ...FEATURE_FLAGS, 'aws:cdk:disable-asset-staging': true },
    });
    const read = readSettings(settings);
    new EcrAnywhereStack(app, read.stackName, { settings: read });
    return withParameters(
      app.synth().getStackByName(read.stackName).template as JsonObject & Template,
      read.stackName,
    );
  } finally {
    await rm(outdir, { recursive: true, force: true });
  }
}

/** Replaces what depends on parameters that always have a value, and names that the CDK derives from settings. */
function withParameters(template: JsonObject & Template, stackName: string): Json {
  const group = Object.entries(template.Resources).find(([, { Type }]) => Type === SCHEDULE_GROUP)?.[0] ?? '';
  const properties: Readonly<Record<string, Readonly<Record<string, Json | undefined>>>> = {
    'AWS::Lambda::Function': {
      Code: { S3Bucket: { Ref: 'FunctionBucket' }, S3Key: { Ref: 'FunctionKey' } },
      MemorySize: { Ref: 'MemorySize' },
    },
    'AWS::Logs::LogGroup': { RetentionInDays: { Ref: 'LogRetentionDays' } },
    // The CDK's name of the group has a hash of the stack's name, so CloudFormation must choose another.
    ...(stackName === NAME_PLACEHOLDER && {
      [SCHEDULE_GROUP]: { Name: undefined },
      'AWS::Scheduler::Schedule': { GroupName: { Ref: group } },
    }),
  };
  const Resources = Object.fromEntries(
    Object.entries(template.Resources).map(([id, resource]) => [
      // The CDK's id contains the address.
      resource.Type === 'AWS::SNS::Subscription' ? 'RefresherAlarmTopicEmail' : id,
      { ...resource, Properties: { ...resource.Properties, ...properties[resource.Type] } },
    ]),
  );
  // As JSON, to drop what is undefined.
  return JSON.parse(JSON.stringify({ ...template, Resources })) as Json;
}

/**
 * Makes one template of several: where a variant differs, CloudFormation chooses by the variant's condition.
 *
 * @param path of the value in the template
 * @throws Error where two variants differ, because the template would need a value for both
 */
function combine(base: Json | undefined, variants: readonly Variant[], path: readonly string[] = []): Json {
  const differing = variants.filter(({ value }) => !isDeepStrictEqual(value, base));
  const [only, second] = differing;
  if (base !== undefined && !only) return base;
  const values = [base, ...differing.map(({ value }) => value)];
  if (values.every(isObject)) {
    const keys = new Set(values.flatMap((value) => Object.keys(value as JsonObject)));
    return Object.fromEntries(
      [...keys].map((key) => [
        key,
        combine(
          (base as JsonObject)[key],
          differing.map(({ condition, value }) => ({ condition, value: (value as JsonObject)[key] })),
          [...path, key],
        ),
      ]),
    );
  }
  if (values.every((value) => Array.isArray(value)))
    return combineLists(base as readonly Json[], differing as readonly ListVariant[], path);
  if (!only || second)
    throw new Error(
      `release/template.ts: settings contradict each other at ${path.join('.')} of the template`,
    );
  const { condition, value } = only;
  if (
    condition === OTHER_NAME &&
    typeof value === 'string' &&
    value.replaceAll(NAME_PLACEHOLDER, DEFAULT_STACK_NAME) === base
  )
    return value;
  // A resource or output has no Fn::If, but a condition.
  if (path.length === 2 && base === undefined) return { ...(value as JsonObject), Condition: condition };
  return { 'Fn::If': [condition, value ?? NO_VALUE, base ?? NO_VALUE] };
}

interface ListVariant extends Variant {
  readonly value: readonly Json[];
}

/** Combines lists. A variant has the items of the base and more, or the same number with other content. */
function combineLists(
  base: readonly Json[],
  variants: readonly ListVariant[],
  path: readonly string[],
): Json {
  const changed = variants.filter(({ value }) => value.length === base.length);
  const added = variants
    .filter(({ value }) => value.length !== base.length)
    .flatMap(({ condition, value }) => {
      let at = 0;
      const items = value.flatMap((item) => {
        if (!isDeepStrictEqual(item, base[at]))
          return { at, item: { 'Fn::If': [condition, item, NO_VALUE] } };
        at += 1;
        return [];
      });
      if (at < base.length)
        throw new Error(
          `release/template.ts: a setting removes an item at ${path.join('.')} of the template`,
        );
      return items;
    });
  const addedAt = (index: number) => added.filter(({ at }) => at === index).map(({ item }) => item);
  return [
    ...base.flatMap((item, index) => [
      ...addedAt(index),
      combine(
        item,
        changed.map(({ condition, value }) => ({ condition, value: value[index] })),
        [...path, String(index)],
      ),
    ]),
    ...addedAt(base.length),
  ];
}

const isObject = (value: Json | undefined): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Replaces the placeholders in all texts by references. */
function withReferences(value: Json): Json {
  if (Array.isArray(value)) return value.map(withReferences);
  if (isObject(value))
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, withReferences(item)]));
  if (typeof value !== 'string') return value;
  const used = REFERENCES.filter(([placeholder]) => value.includes(placeholder));
  if (used.length === 0) return value;
  const [[placeholder, name]] = used as [readonly [string, string]];
  if (value === placeholder) return { Ref: name };
  const text = used.reduce(
    (all, [each, reference]) => all.replaceAll(each, `\${${reference}}`),
    value.replaceAll('${', '${!'),
  );
  return { 'Fn::Sub': text };
}

/** Writes a folder as a zip whose bytes depend on the content of the files only. */
async function zip(folder: string): Promise<Uint8Array> {
  const files: Zippable = {};
  // Lambda must be able to read the files. 1980 is the first year that a zip can name; it has no time zone.
  for (const name of (await readdir(folder)).sort())
    files[name] = [
      await readFile(join(folder, name)),
      { mtime: new Date(1980, 0, 1), os: 3, attrs: 0o100644 << 16 },
    ];
  return zipSync(files, { level: 9 });
}

/** Writes `ecr-anywhere.template.json` and `function.zip`. */
export async function writeTemplate(folder: string): Promise<void> {
  await buildFunction();
  await mkdir(folder, { recursive: true });
  // Without spaces: CloudFormation takes 51,200 bytes without a bucket.
  await writeFile(join(folder, 'ecr-anywhere.template.json'), `${JSON.stringify(await buildTemplate())}\n`);
  await writeFile(join(folder, 'function.zip'), await zip(FUNCTION_FOLDER));
}

if (import.meta.main) await writeTemplate(fileURLToPath(new URL('../dist/template', import.meta.url)));
