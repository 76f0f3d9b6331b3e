/* Compile-time options of the ssh server: public keys only, no legacy algorithm. */
#define NON_INETD_MODE 0
#define DROPBEAR_SMALL_CODE 0
#define DROPBEAR_DELAY_HOSTKEY 0
#define DROPBEAR_SVR_PASSWORD_AUTH 0
#define DO_MOTD 0
#define DROPBEAR_SHA1_HMAC 0
#define DROPBEAR_SHA2_512_HMAC 1
#define DROPBEAR_RSA_SHA1 0
#define DROPBEAR_DH_GROUP14_SHA1 0
#define AUTH_TIMEOUT 30
#define DEFAULT_RECV_WINDOW 1048576
#define SFTPSERVER_PATH "/opt/phalanx/libexec/sftp-server"
