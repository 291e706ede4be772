// Ends the programs that a test process started when that process is gone, however it ended: a SIGKILL runs no handler.
// The test process holds the other end of standard input and writes a line per program: "+PID" or "-PID".
// Each program leads a process group, so its own children end with it.
import { createInterface } from 'node:readline';

const running = new Set();

// Ctrl-C reaches the whole foreground group; the watchdog must outlive the process that it watches.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => {});

createInterface({ input: process.stdin })
  .on('line', (line) => {
    const pid = Number(line.slice(1));
    if (line.startsWith('+')) running.add(pid);
    else running.delete(pid);
  })
  .on('close', () => {
    for (const pid of running) {
      try {
        process.kill(-pid, 'SIGKILL');
      } catch {
        // The program has ended already.
      }
    }
    process.exit();
  });
