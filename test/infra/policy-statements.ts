// Lists what the policies of a template say, action by action.
import type { Template } from 'aws-cdk-lib/assertions';

/** One action of one statement. */
export interface Grant {
  /**
   * The policy's resource without its hash, and the action: `RefresherFunctionRole sns:Publish`. Before the action, `trusts`
   * for the trust policy of a role, and `denies` for a Deny. After it, the services through which a key may be used.
   */
  readonly name: string;
  /** The logical ids and the literal ARNs that the statement is about; of a trust policy, the role. */
  readonly about: readonly string[];
  readonly statement: Statement;
}

export interface Statement {
  readonly Effect: 'Allow' | 'Deny';
  readonly Action: string | readonly string[];
  readonly Resource?: unknown;
  readonly Condition?: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
}

/** All grants of the template, managed policies and permissions of functions included. */
export function grants(template: Template): Grant[] {
  const { Resources } = template.toJSON() as {
    Resources: Record<string, { Type: string; Properties?: Record<string, unknown> }>;
  };
  return Object.entries(Resources).flatMap(([logicalId, { Type, Properties = {} }]) => {
    const id = logicalId.replace(/[0-9A-F]{8}$/, '');
    const managed = [Properties.ManagedPolicyArns ?? []].flat().map((arn) => `uses ${JSON.stringify(arn)}`);
    const permission = Type === 'AWS::Lambda::Permission' ? [String(Properties.Action)] : [];
    const others = [...managed, ...permission].map((text) => ({
      ...{ name: `${id} ${text}`, about: [] },
      statement: { Effect: 'Allow', Action: text } as const,
    }));
    const { AssumeRolePolicyDocument: trust, ...rest } = Properties;
    const trusted = statementsIn(trust).flatMap((statement) =>
      named(`${id} trusts `, statement, [logicalId]),
    );
    return [
      ...others,
      ...trusted,
      ...statementsIn(rest).flatMap((one) => named(`${id} `, one, idsIn(one.Resource))),
    ];
  });
}

function named(prefix: string, statement: Statement, about: readonly string[]): Grant[] {
  const services = [statement.Condition?.StringEquals?.['kms:ViaService'] ?? []]
    .flat()
    .map((host) => /[a-z0-9]+(?=\.)/.exec(JSON.stringify(host))?.[0]);
  const suffix = services.length > 0 ? ` through ${services.join(', ')}` : '';
  const denies = statement.Effect === 'Deny' ? 'denies ' : '';
  return [statement.Action].flat().map((action) => ({
    name: `${prefix}${denies}${action}${suffix}`,
    about,
    statement,
  }));
}

function statementsIn(value: unknown): Statement[] {
  if (typeof value !== 'object' || value === null) return [];
  if ('Statement' in value) return [value.Statement].flat() as Statement[];
  return Object.values(value).flatMap(statementsIn);
}

/** The logical ids and the literal ARNs in a value of a template. */
export function idsIn(value: unknown): string[] {
  if (typeof value === 'string') return value.startsWith('arn:aws:') ? [value] : [];
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, part]) => {
    if (key === 'Ref') return String(part).startsWith('AWS::') ? [] : [String(part)];
    return key === 'Fn::GetAtt' ? [String(part[0])] : idsIn(part);
  });
}
