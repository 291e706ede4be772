// The reference for admissions: a bare Node HTTPS server that reads the body, writes one log line and sends a constant
// answer. Arguments: certificate, key, host, port, a file with the answer.
import { readFileSync, writeSync } from 'node:fs';
import { createServer } from 'node:https';

const [cert = '', key = '', host = '', port = '', answerFile = ''] = process.argv.slice(2);
const answer = readFileSync(answerFile);
const line = {
  level: 30,
  uid: 'bench',
  operation: 'UPDATE',
  secret: 'team-a/pull',
  user: 'bench',
  dryRun: false,
  action: 'keep',
  reason: 'fresh',
  ms: 0,
  msg: 'admission',
};

createServer({ cert: readFileSync(cert), key: readFileSync(key) }, (request, response) => {
  request.resume().on('end', () => {
    writeSync(1, `${JSON.stringify({ ...line, time: new Date().toISOString() })}\n`);
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': answer.length });
    response.end(answer);
  });
}).listen(Number(port), host);
