// A DynamoDB table in memory. It evaluates the requests of functions/refresher/clusters/cluster-state.ts, so that a
// simulation of hundreds of thousands of cluster runs stores and reads the state with the refresher's own code.
import {
  type AttributeValue,
  ConditionalCheckFailedException,
  DynamoDBClient,
  ScanCommand,
  UpdateItemCommand,
  type UpdateItemCommandInput,
} from '@aws-sdk/client-dynamodb';

export interface TableInMemory {
  /** Accepts UpdateItem and Scan. */
  readonly client: DynamoDBClient;
  /** UpdateItem requests so far. */
  readonly writes: number;
}

type Item = Record<string, AttributeValue>;
/** A part of an expression, for an item and the values of a request. */
type Evaluate<Result> = (item: Item, values: Item) => Result;

/** @param key the name of the table's key */
export function tableInMemory(key: string): TableInMemory {
  const items = new Map<string, Item>();
  let writes = 0;

  const update = (input: UpdateItemCommandInput) => {
    writes += 1;
    const name = input.Key?.[key]?.S ?? '';
    const values = input.ExpressionAttributeValues ?? {};
    const stored = items.get(name);
    if (input.ConditionExpression && !conditionOf(input.ConditionExpression)(stored ?? {}, values))
      throw new ConditionalCheckFailedException({
        message: 'The conditional request failed',
        $metadata: {},
        ...(stored && input.ReturnValuesOnConditionCheckFailure === 'ALL_OLD' && { Item: stored }),
      });
    const item = stored ? { ...stored } : { [key]: { S: name } };
    for (const change of changesOf(input.UpdateExpression ?? '')) change(item, values);
    items.set(name, item);
    return { $metadata: {}, ...(input.ReturnValues === 'ALL_NEW' && { Attributes: item }) };
  };
  const send = async (command: unknown) => {
    if (command instanceof UpdateItemCommand) return update(command.input);
    if (command instanceof ScanCommand) return { $metadata: {}, Items: [...items.values()] };
    throw new Error('the table in memory knows UpdateItem and Scan only');
  };
  const client = new DynamoDBClient({ region: 'us-east-1' });
  client.send = send as typeof client.send;
  return {
    client,
    get writes() {
      return writes;
    },
  };
}

/** Requests have few different expressions: each is parsed once. */
function cached<Result>(parse: (expression: string) => Result): (expression: string) => Result {
  const known = new Map<string, Result>();
  return (expression) => {
    const parsed = known.get(expression) ?? parse(expression);
    known.set(expression, parsed);
    return parsed;
  };
}

const ASSIGNMENT = /^#?(\w+) = (?:if_not_exists\(#?(\w+), (:\w+)\)(?: \+ (:\w+))?|(:\w+))$/;

/** The changes of `SET a = :a, b = if_not_exists(b, :b), c = if_not_exists(c, :zero) + :one REMOVE d, e`. */
const changesOf = cached((expression): Evaluate<void>[] => {
  const [, assignments, removed, onlyRemoved] =
    /^(?:SET (.*?)(?: REMOVE (.*))?|REMOVE (.*))$/.exec(expression) ?? unknown(expression);
  // A comma inside of parentheses is not followed by an assignment.
  const sets = (assignments?.split(/, (?=#?\w+ = )/) ?? []).map((assignment): Evaluate<void> => {
    const [, name = '', existing, fallback, addend, value] =
      ASSIGNMENT.exec(assignment) ?? unknown(assignment);
    return (item, values) => {
      const present = (existing !== undefined && item[existing]) || values[fallback ?? value ?? ''];
      const next = addend && { N: String(Number(present?.N) + Number(values[addend]?.N)) };
      item[name] = next || present || unknown(assignment);
    };
  });
  const removals = ((removed ?? onlyRemoved)?.split(', ') ?? []).map((name): Evaluate<void> => {
    const attribute = name.replace('#', '');
    return (item) => {
      delete item[attribute];
    };
  });
  return [...sets, ...removals];
});

/** `(a OR b) AND c`, of comparisons of texts. */
const conditionOf = cached((expression): Evaluate<boolean> => {
  const all = expression
    .split(' AND ')
    .map((part) => part.replace(/^\((.*)\)$/, '$1'))
    .map((part) => part.split(' OR ').map(comparisonOf));
  return (item, values) => all.every((some) => some.some((holds) => holds(item, values)));
});

function comparisonOf(text: string): Evaluate<boolean> {
  const [, absent] = /^attribute_not_exists\(#?(\w+)\)$/.exec(text) ?? [];
  if (absent !== undefined) return (item) => item[absent] === undefined;
  const [, name = '', operator, value = ''] = /^#?(\w+) ([<=]) (:\w+)$/.exec(text) ?? unknown(text);
  return (item, values) => {
    const [left, right] = [item[name]?.S, values[value]?.S];
    if (left === undefined || right === undefined) return false;
    return operator === '<' ? left < right : left === right;
  };
}

function unknown(expression: string): never {
  throw new Error(`the table in memory does not know this expression: ${expression}`);
}
