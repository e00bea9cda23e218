//! A DNS query is answered without an error (RFC 1035), over what carries the VIP's own queries.

use hickory_proto::{
    op::{Message, MessageType, Query, ResponseCode},
    rr::RecordType,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Failure, Target, failed, failure, tcp, udp};
use crate::config::{Protocol, health::Dns};

pub(super) async fn probe(to: &Target, dns: &Dns) -> Result<(), Failure> {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(dns.query.clone(), RecordType::A));
    let question = query
        .to_vec()
        .map_err(|error| Failure::NotAsked(error.to_string()))?;
    let answer = match dns.transport {
        Protocol::Udp => udp::ask(to, &question).await?,
        Protocol::Tcp => ask_by_tcp(to, &question).await?,
    };
    let answer = Message::from_vec(&answer).map_err(|error| failed("read the answer", &error))?;
    let is_ours = answer.metadata.id == query.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.queries == query.queries;
    if !is_ours {
        let text = "the answer is to another question";
        return Err(Failure::Failed(text.to_owned()));
    }
    // No error with no answer says that the name has no address of this type: the server serves.
    match answer.metadata.response_code {
        ResponseCode::NoError => Ok(()),
        code => Err(Failure::Failed(format!("the answer is {code}"))),
    }
}

/// Over TCP, the length of a message precedes it.
async fn ask_by_tcp(to: &Target, question: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut stream = tcp::connect(to).await?;
    let length = u16::try_from(question.len())
        .map_err(|error| Failure::NotAsked(format!("the question is too long: {error}")))?;
    let ask = async {
        let framed = [&length.to_be_bytes(), question].concat();
        stream.write_all(&framed).await?;
        let length = stream.read_u16().await?;
        let mut answer = vec![0; length.into()];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    };
    ask.await.map_err(|error| failure("ask", &error))
}
