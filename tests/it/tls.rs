//! Clients, and the load tester, on a node that speaks TLS: https and wss with a certificate that they were told to
//! believe, and no word to a node whose certificate nobody vouches for.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use crate::support::chat::Chat;
use crate::support::load::Load;
use crate::support::{Node, unique};

/// An authority of the test's own, and a certificate of it in files.
pub(crate) struct Certificates {
    pub(crate) authority: PathBuf,
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
}

pub(crate) fn certificates(folder: &Path, names: &[&str]) -> Certificates {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names).expect("names").signed_by(&key, &authority).expect("a certificate");
    let put = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    Certificates {
        authority: put("authority.pem", authority.pem()),
        chain: put("chain.pem", certificate.pem()),
        key: put("key.pem", key.serialize_pem()),
    }
}

async fn node_with(certificates: &Certificates) -> Node {
    let text = |path: &PathBuf| path.to_str().expect("a name").to_owned();
    let (chain, key) = (text(&certificates.chain), text(&certificates.key));
    Node::start(&[("http.tls.cert", chain.as_str()), ("http.tls.key", key.as_str())]).await
}

#[tokio::test]
async fn people_chat_over_tls_with_an_authority_that_they_trust() {
    let folder = TempDir::new().expect("a folder");
    let certificates = certificates(folder.path(), &["127.0.0.1"]);
    let node = node_with(&certificates).await;
    assert!(node.url().starts_with("https://"));
    let trust = certificates.authority.to_str().expect("a name").to_owned();
    tokio::task::spawn_blocking(move || {
        let trust = ["--trust", trust.as_str()];
        let (ann_name, ben_name) = (unique("ann"), unique("ben"));
        let mut ann = Chat::start(&node.url(), folder.path(), &ann_name, &trust);
        let mut ben = Chat::start(&node.url(), folder.path(), &ben_name, &trust);
        ann.shows("connected");
        ben.shows("connected");
        ann.types("/create the den");
        ann.shows("made the den");
        ann.types(&format!("/invite {ben_name}"));
        ben.shows(&format!("{ann_name} invites you"));
        ben.types("/accept");
        ann.shows(&format!("{ben_name} came in"));
        ann.types("under the rose");
        ben.shows(&format!("🔒 {ann_name}: under the rose"));
        ben.quits();
        ann.quits();
    })
    .await
    .expect("no panic");
}

#[tokio::test]
async fn who_does_not_trust_the_certificate_or_finds_another_name_in_it_does_not_connect() {
    let folder = TempDir::new().expect("a folder");
    let elsewhere = certificates(folder.path(), &["chat.example.org"]);
    let node = node_with(&elsewhere).await;
    let trust = elsewhere.authority.to_str().expect("a name").to_owned();
    tokio::task::spawn_blocking(move || {
        for (more, said) in [(vec![], "UnknownIssuer"), (vec!["--trust", trust.as_str()], "not valid for name")] {
            let chat = Chat::start(&node.url(), folder.path(), &unique("ann"), &more);
            let error = chat.fails();
            assert!(error.contains(said), "expected {said:?}: {error}");
        }
    })
    .await
    .expect("no panic");
}

#[tokio::test]
async fn a_node_is_put_under_load_over_tls() {
    let folder = TempDir::new().expect("a folder");
    let certificates = certificates(folder.path(), &["127.0.0.1"]);
    let node = node_with(&certificates).await;
    let over_tls = format!(
        "--url wss://{}/v1/ws --ca {} --users users.json --json report.json",
        node.address,
        certificates.authority.display()
    );
    // A payload of several TLS records, and connections that come back.
    for scenario in [
        "churn --sessions 2 --members 4 --rate 60 --drops 5 --storms 1 --payload 40000 --duration 2s --warmup 0s",
        "rotation --sessions 1 --members 3 --rate 40 --rotate-every 1s --duration 2s --warmup 0s",
    ] {
        Load::run_alone(&format!("{scenario} {over_tls}")).await.passed();
    }
}

#[tokio::test]
async fn a_load_run_without_the_right_certificate_or_without_tls_says_what_is_wrong() {
    let folder = TempDir::new().expect("a folder");
    let elsewhere = certificates(folder.path(), &["chat.example.org"]);
    let (node, plain) = (node_with(&elsewhere).await, Node::shared().await);
    let trusted = format!("--ca {}", elsewhere.authority.display());
    for (scheme, address, more, said) in [
        ("wss", node.address, "", "name its authority with --ca"),
        ("https", node.address, &*trusted, "not valid for name"),
        ("wss", plain.address, &*trusted, "does the server speak TLS there?"),
        ("ws", node.address, "", "does the server speak TLS there? Then it is wss://"),
    ] {
        let run =
            format!("direct --sessions 1 --duration 1s --url {scheme}://{address}/v1/ws {more} --users users.json");
        Load::run_alone(&run).await.refused(said);
    }
}
