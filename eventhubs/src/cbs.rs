//! Claims-based security: a token is put to the node `$cbs` before links are attached.
//!
//! <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-amqp-protocol-guide#claims-based-authorization>

/// Address of the node that takes tokens.
pub const NODE: &str = "$cbs";

/// Application property of a request: what is asked for.
pub const OPERATION: &str = "operation";
/// The only [`OPERATION`] there is.
pub const PUT_TOKEN: &str = "put-token";
/// Application property of a request: the kind of token, [`TYPE_JWT`] or [`TYPE_SAS`].
pub const TYPE: &str = "type";
/// Application property of a request: the audience, a URI of a hub or of one of its nodes.
pub const NAME: &str = "name";
/// Application property of a request: when the token ends (timestamp).
pub const EXPIRATION: &str = "expiration";
/// A token of Microsoft Entra ID.
pub const TYPE_JWT: &str = "jwt";
/// A shared access signature.
pub const TYPE_SAS: &str = "servicebus.windows.net:sastoken";

/// Application property of a response. Some clients read this spelling, others
/// [`STATUS_CODE_CAMEL`]; the service writes both, and so for the description.
pub const STATUS_CODE: &str = "status-code";
/// The other spelling of [`STATUS_CODE`].
pub const STATUS_CODE_CAMEL: &str = "statusCode";
/// Application property of a response: the reason in words.
pub const STATUS_DESCRIPTION: &str = "status-description";
/// The other spelling of [`STATUS_DESCRIPTION`].
pub const STATUS_DESCRIPTION_CAMEL: &str = "statusDescription";
/// The status of a token that was taken. Clients compare for equality: 200 is a failure to them.
pub const ACCEPTED: i32 = 202;
