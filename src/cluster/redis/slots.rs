//! Which server of a Redis Cluster has which channel. Pure.

use redis::Value;

use super::dial::Address;

/// Slots of a cluster.
pub(super) const SLOTS: usize = 16_384;

/// The slot of a channel: CRC-16/XMODEM of its name. Our names have no braces, so the whole name counts.
pub(super) fn slot(name: &str) -> usize {
    let crc = name.bytes().fold(0u16, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(byte) << 8),
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
            },
        )
    });
    usize::from(crc) % SLOTS
}

/// Reads the answer to `CLUSTER SLOTS`: for each slot its master. Where Redis does not know its own host, it is `asked`.
pub(super) fn masters(answer: &Value, asked: &Address) -> Option<Vec<Option<Address>>> {
    let mut masters = vec![None; SLOTS];
    for range in array(answer)? {
        let [from, to, master, ..] = array(range)? else { return None };
        let (from, to) = (index(from)?, index(to)?);
        let [host, port, ..] = array(master)? else { return None };
        let host = match text(host) {
            Some(host) if !host.is_empty() && host != "?" => host.to_owned(),
            Some(_) | None => asked.host.clone(),
        };
        let address = Address { host, port: index(port)?.try_into().ok()? };
        masters.get_mut(from..=to)?.fill(Some(address));
    }
    Some(masters)
}

fn array(value: &Value) -> Option<&[Value]> {
    if let Value::Array(values) = value { Some(values) } else { None }
}

fn index(value: &Value) -> Option<usize> {
    if let Value::Int(number) = value { usize::try_from(*number).ok() } else { None }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // From the specification of Redis Cluster, and `CLUSTER KEYSLOT`.
        assert_eq!(slot("123456789"), 0x31c3);
        assert_eq!(slot("foo"), 12_182);
        assert_eq!(slot("bar"), 5061);
        assert_eq!(slot(""), 0);
    }

    #[test]
    fn an_answer_names_the_master_of_each_slot() {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let node = |host: Value, port| Value::Array(vec![host, Value::Int(port), bulk("id"), Value::Array(vec![])]);
        let range =
            |from, to, nodes: Vec<Value>| Value::Array([vec![Value::Int(from), Value::Int(to)], nodes].concat());
        let answer = Value::Array(vec![
            range(0, 99, vec![node(bulk("10.0.0.1"), 7000), node(bulk("10.0.0.9"), 7009)]),
            range(100, 100, vec![node(Value::Nil, 7001)]),
        ]);
        let asked = Address { host: "seed".to_owned(), port: 1 };
        let masters = masters(&answer, &asked).unwrap();
        let port = |slot: usize| masters[slot].as_ref().map(|at| (at.host.as_str(), at.port));
        assert_eq!(port(0), Some(("10.0.0.1", 7000)));
        assert_eq!(port(99), Some(("10.0.0.1", 7000)));
        assert_eq!(port(100), Some(("seed", 7001)));
        assert_eq!(port(101), None);
        for damaged in [Value::Nil, Value::Array(vec![range(0, 16_384, vec![node(bulk("h"), 1)])])] {
            assert_eq!(super::masters(&damaged, &asked), None);
        }
    }
}
