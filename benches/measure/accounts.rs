//! Users for a run, registered over HTTP by a few threads. All share one public key: nobody encrypts here.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// Of a key pair whose private half was thrown away.
const PUBLIC_KEY: &str = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAq9hGRIGczsRaROcMvd17wgFtCfMozD8m3hk6Osv+lfKbWy2qompSrNuA\
    uwhXhnMzLqNMTTk22oRn1eRfDMRCVmcBNh5jt58VEW0COy1D/GymcLZ0Ahpas255G+5WjAcLidXh2A84B//J0MLZgh3rD9bR3MV8\
    pRHpp5H4r0iy0/e9LYOpvzZdMdeDkkA1hYw5HAjHWW+DFeATCjIDMjKB81dzQ2TJfa2oEuWabcH08HDqJcV9YubgEXa2ZwzfyXrw\
    7yqCJEQakrh+wnNmqC2ZrLIgBLTiEi2+n9otEVeFGvzPPlblwlqkmvG0hz+d1JTNx0tluFdSeU2ezQSsJ/ZJ+wIDAQAB";
const THREADS: usize = 8;

/// A user of this run.
#[derive(Clone, Deserialize)]
pub(crate) struct Account {
    pub(crate) user_id: String,
    pub(crate) token: String,
}

impl Account {
    /// The body of this user's `authenticate`.
    pub(crate) fn authenticate(&self) -> String {
        format!(r#"{{"token":"{}"}}"#, self.token)
    }
}

/// Registers so many users, under names that no earlier run had.
pub(crate) fn register(node: SocketAddr, count: usize) -> Result<Vec<Account>> {
    let run = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
    let each = count.div_ceil(THREADS);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let numbers = (thread * each)..((thread + 1) * each).min(count);
                scope.spawn(move || register_some(node, run, numbers))
            })
            .collect();
        let mut accounts = Vec::with_capacity(count);
        for thread in threads {
            accounts.extend(thread.join().expect("a thread that registers does not panic")?);
        }
        Ok(accounts)
    })
}

fn register_some(node: SocketAddr, run: u128, numbers: std::ops::Range<usize>) -> Result<Vec<Account>> {
    let mut stream = BufReader::new(TcpStream::connect(node).context("no connection to the node")?);
    stream.get_ref().set_nodelay(true)?;
    numbers
        .map(|number| {
            let body = format!(
                r#"{{"name":"m{run:x}-{number}","password":"measured {run:x} {number}","public_key":"{PUBLIC_KEY}"}}"#
            );
            let answer = post(&mut stream, node, "/v1/register", &body)?;
            serde_json::from_slice(&answer).context("an unreadable account")
        })
        .collect()
}

/// One call on a connection that stays open; gives the body of a 2xx answer.
fn post(stream: &mut BufReader<TcpStream>, node: SocketAddr, path: &str, body: &str) -> Result<Vec<u8>> {
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {node}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.get_mut().write_all(request.as_bytes())?;
    let mut status = String::new();
    stream.read_line(&mut status)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    let fine = status.split(' ').nth(1).is_some_and(|code| code.starts_with('2'));
    ensure!(fine, "{path}: {} {}", status.trim(), String::from_utf8_lossy(&answer));
    Ok(answer)
}
