// A queue for failed events: encrypted, TLS only, with the longest retention that SQS offers.
import { Duration } from 'aws-cdk-lib';
import type { IKey } from 'aws-cdk-lib/aws-kms';
import { Queue, QueueEncryption } from 'aws-cdk-lib/aws-sqs';
import type { Construct } from 'constructs';

/** Creates the queue. The caller must grant sqs:SendMessage, and use of the key through SQS. */
export function deadLetters(scope: Construct, id: string, key: IKey | undefined): Queue {
  return new Queue(scope, id, {
    ...(key
      ? { encryption: QueueEncryption.KMS, encryptionMasterKey: key }
      : { encryption: QueueEncryption.SQS_MANAGED }),
    enforceSSL: true,
    retentionPeriod: Duration.days(14),
  });
}
