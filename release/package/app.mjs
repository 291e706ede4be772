#!/usr/bin/env node
// The CDK app of the npm package: cdk deploy --app "npx --no ecr-anywhere-app".
try {
  await import('./stack.mjs');
} catch (error) {
  if (error.code !== 'ERR_MODULE_NOT_FOUND' || !/'(aws-cdk-lib|constructs)'/.test(error.message)) throw error;
  console.error(
    'The CDK app needs aws-cdk-lib and constructs: run "npm install aws-cdk-lib constructs aws-cdk" here.',
  );
  process.exit(1);
}
